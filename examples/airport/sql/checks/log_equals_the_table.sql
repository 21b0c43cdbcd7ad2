WITH from_log AS (
  SELECT s.data ->> 'flight' AS flight, s.data ->> 'carrier' AS carrier,
         (s.data ->> 'number')::int AS number, s.data ->> 'origin' AS origin, s.data ->> 'dest' AS dest,
         s.data ->> 'tail' AS tail, (s.data ->> 'distance_miles')::int AS distance_miles,
         (s.data ->> 'departs_at')::timestamptz AS departs_at,
         (s.data ->> 'arrives_clock')::int AS arrives_clock,
         split_part(coalesce(a.type, v.type, c.type, d.type, s.type), '.', 2) AS status,
         d.occurred_at AS departed_at, (d.data ->> 'delay_minutes')::int AS departure_delay,
         a.occurred_at AS arrived_at, (coalesce(a.data, v.data) ->> 'clock')::int AS arrival_clock,
         (a.data ->> 'delay_minutes')::int AS arrival_delay, (a.data ->> 'air_minutes')::int AS air_minutes
  FROM (SELECT * FROM headwater.events WHERE type = 'flight.scheduled') AS s
  LEFT JOIN (SELECT * FROM headwater.events WHERE type = 'flight.departed') AS d USING (stream)
  LEFT JOIN (SELECT * FROM headwater.events WHERE type = 'flight.arrived') AS a USING (stream)
  LEFT JOIN (SELECT * FROM headwater.events WHERE type = 'flight.diverted') AS v USING (stream)
  LEFT JOIN (SELECT * FROM headwater.events WHERE type = 'flight.cancelled') AS c USING (stream)
), in_table AS (
  SELECT flight, carrier, number, origin, dest, tail, distance_miles, departs_at, arrives_clock, status,
         departed_at, departure_delay, arrived_at, arrival_clock, arrival_delay, air_minutes
  FROM airport.flights
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_table) UNION ALL (TABLE in_table EXCEPT ALL TABLE from_log)
) AS differences
