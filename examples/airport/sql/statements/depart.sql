UPDATE airport.flights AS f
   SET status = 'departed', departed_at = r.at, departure_delay = r.delay_minutes
  FROM json_to_recordset(%(rows)s::json) AS r (flight text, at timestamptz, delay_minutes int)
 WHERE f.flight = r.flight AND f.status = 'scheduled'
