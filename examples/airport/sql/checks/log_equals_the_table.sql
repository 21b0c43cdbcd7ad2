WITH from_log AS (
  SELECT max(data ->> 'flight') FILTER (WHERE type = 'flight.scheduled') AS flight,
         max(data ->> 'carrier') FILTER (WHERE type = 'flight.scheduled') AS carrier,
         max((data ->> 'number')::int) FILTER (WHERE type = 'flight.scheduled') AS number,
         max(data ->> 'origin') FILTER (WHERE type = 'flight.scheduled') AS origin,
         max(data ->> 'dest') FILTER (WHERE type = 'flight.scheduled') AS dest,
         max(data ->> 'tail') FILTER (WHERE type = 'flight.scheduled') AS tail,
         max((data ->> 'distance_miles')::int) FILTER (WHERE type = 'flight.scheduled') AS distance_miles,
         max((data ->> 'departs_at')::timestamptz) FILTER (WHERE type = 'flight.scheduled') AS departs_at,
         max((data ->> 'arrives_clock')::int) FILTER (WHERE type = 'flight.scheduled') AS arrives_clock,
         coalesce(
           max('cancelled') FILTER (WHERE type = 'flight.cancelled'),
           max('diverted') FILTER (WHERE type = 'flight.diverted'),
           max('arrived') FILTER (WHERE type = 'flight.arrived'),
           max('departed') FILTER (WHERE type = 'flight.departed'), 'scheduled') AS status,
         max(occurred_at) FILTER (WHERE type = 'flight.departed') AS departed_at,
         max((data ->> 'delay_minutes')::int) FILTER (WHERE type = 'flight.departed') AS departure_delay,
         max(occurred_at) FILTER (WHERE type = 'flight.arrived') AS arrived_at,
         max((data ->> 'clock')::int) AS arrival_clock,
         max((data ->> 'delay_minutes')::int) FILTER (WHERE type = 'flight.arrived') AS arrival_delay,
         max((data ->> 'air_minutes')::int) AS air_minutes
  FROM headwater.events GROUP BY stream
), in_table AS (
  SELECT flight, carrier, number, origin, dest, tail, distance_miles, departs_at, arrives_clock, status,
         departed_at, departure_delay, arrived_at, arrival_clock, arrival_delay, air_minutes
  FROM airport.flights
)
SELECT count(*) FROM (
  (TABLE from_log EXCEPT ALL TABLE in_table) UNION ALL (TABLE in_table EXCEPT ALL TABLE from_log)
) AS differences
