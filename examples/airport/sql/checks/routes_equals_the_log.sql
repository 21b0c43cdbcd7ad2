WITH from_log AS (
  SELECT data ->> 'origin' AS origin, data ->> 'dest' AS dest,
         count(*) FILTER (WHERE type = 'flight.arrived') AS arrivals,
         count(*) FILTER (WHERE type = 'flight.diverted') AS diversions,
         avg((data ->> 'air_minutes')::bigint) AS mean_air_minutes,
         avg((data ->> 'delay_minutes')::bigint) AS mean_delay_minutes
  FROM headwater.events WHERE type IN ('flight.arrived', 'flight.diverted') GROUP BY 1, 2
), in_view AS (
  SELECT origin, dest, arrivals, diversions, mean_air_minutes, mean_delay_minutes
  FROM headwater_views.routes
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_view) UNION ALL (TABLE in_view EXCEPT ALL TABLE from_log)
) AS differences
