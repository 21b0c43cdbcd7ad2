UPDATE airport.flights AS f
   SET status = 'cancelled'
  FROM json_to_recordset(%(rows)s::json) AS r (flight text)
 WHERE f.flight = r.flight AND f.status = 'scheduled'
