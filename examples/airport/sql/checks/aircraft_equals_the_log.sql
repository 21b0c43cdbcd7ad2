WITH flown AS (
  SELECT data ->> 'tail' AS tail, type, position, (data ->> 'delay_minutes')::int AS delay_minutes,
         (data ->> 'air_minutes')::int AS air_minutes,
         CASE type WHEN 'flight.departed' THEN data ->> 'origin' ELSE data ->> 'dest' END AS airport
  FROM headwater.events WHERE type IN ('flight.departed', 'flight.arrived')
), sums AS (
  SELECT tail, count(*) FILTER (WHERE type = 'flight.departed') AS flights,
         coalesce(sum(air_minutes), 0) AS minutes_flown, max(position) AS position
  FROM flown GROUP BY tail
), from_log AS (
  SELECT tail, airport, flights, minutes_flown, delay_minutes
  FROM sums JOIN flown USING (tail, position)
), in_view AS (
  SELECT key, document ->> 'airport', (document ->> 'flights')::int,
         (document ->> 'minutes_flown')::int, (document ->> 'last_delay_minutes')::int
  FROM headwater_views.aircraft
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_view) UNION ALL (TABLE in_view EXCEPT ALL TABLE from_log)
) AS differences
