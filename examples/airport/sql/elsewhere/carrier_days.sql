SELECT jsonb_build_array(count(DISTINCT (data ->> 'carrier', date_trunc('day', occurred_at, 'UTC'))), count(*),
                         sum((data ->> 'delay_minutes')::int))
  FROM headwater.events WHERE type = 'flight.departed'
