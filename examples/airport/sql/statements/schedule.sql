INSERT INTO airport.flights
  (flight, carrier, number, origin, dest, tail, distance_miles, departs_at, arrives_clock)
SELECT flight, carrier, number, origin, dest, tail, distance_miles, departs_at, arrives_clock
FROM json_to_recordset(%(rows)s::json) AS r
  (flight text, carrier text, number int, origin text, dest text, tail text, distance_miles int,
   departs_at timestamptz, arrives_clock int)
