WITH from_log AS (
  SELECT CASE type WHEN 'flight.departed' THEN data ->> 'origin' ELSE data ->> 'dest' END AS airport,
         date_trunc('hour', occurred_at) AS hour,
         count(*) FILTER (WHERE type = 'flight.departed') AS departures,
         count(*) FILTER (WHERE type = 'flight.arrived') AS arrivals,
         avg((data ->> 'delay_minutes')::bigint) FILTER (WHERE type = 'flight.departed')
           AS mean_departure_delay_minutes
  FROM headwater.events WHERE type IN ('flight.departed', 'flight.arrived') GROUP BY 1, 2
), in_view AS (
  SELECT airport, hour, departures, arrivals, mean_departure_delay_minutes
  FROM headwater_views.airport_hours
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_view) UNION ALL (TABLE in_view EXCEPT ALL TABLE from_log)
) AS differences
