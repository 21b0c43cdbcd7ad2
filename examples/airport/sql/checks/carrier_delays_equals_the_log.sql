WITH from_log AS (
  SELECT data ->> 'carrier' AS carrier,
         count(*) FILTER (WHERE type = 'flight.departed') AS departures,
         count(*) FILTER (WHERE type = 'flight.cancelled') AS cancellations,
         sum((data ->> 'delay_minutes')::bigint) AS delay_minutes,
         avg((data ->> 'delay_minutes')::bigint) AS mean_delay_minutes,
         max((data ->> 'delay_minutes')::bigint) AS longest_delay_minutes
  FROM headwater.events WHERE type IN ('flight.departed', 'flight.cancelled') GROUP BY 1
), in_view AS (
  SELECT carrier, departures, cancellations, delay_minutes, mean_delay_minutes, longest_delay_minutes
  FROM headwater_views.carrier_delays
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_view) UNION ALL (TABLE in_view EXCEPT ALL TABLE from_log)
) AS differences
