UPDATE airport.flights AS f
   SET status = 'diverted', arrival_clock = r.clock
  FROM json_to_recordset(%(rows)s::json) AS r (flight text, clock int)
 WHERE f.flight = r.flight AND f.status = 'departed'
