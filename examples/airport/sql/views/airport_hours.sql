SELECT airport,
       date_trunc('hour', occurred_at) AS hour,
       count(departure_delay) AS departures,
       count(*) FILTER (WHERE departure_delay IS NULL) AS arrivals,
       avg(departure_delay) AS mean_departure_delay_minutes
FROM (
  SELECT origin AS airport, occurred_at, delay_minutes AS departure_delay FROM flight.departed
  UNION ALL
  SELECT dest, occurred_at, NULL::bigint FROM flight.arrived
) AS movements
GROUP BY airport, date_trunc('hour', occurred_at)
