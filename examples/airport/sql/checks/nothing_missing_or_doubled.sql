-- Flights whose stream is not exactly one of the stories that a flight can have.
SELECT count(*) FROM (
  SELECT string_agg(type, ' ' ORDER BY version) AS story, max(version) AS versions, count(*) AS events
  FROM headwater.events GROUP BY stream
) AS flights
WHERE versions <> events OR story NOT IN (
  'flight.scheduled flight.cancelled',
  'flight.scheduled flight.departed flight.arrived',
  'flight.scheduled flight.departed flight.diverted')
