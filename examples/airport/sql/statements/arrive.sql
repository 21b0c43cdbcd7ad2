UPDATE airport.flights AS f
   SET status = 'arrived', arrived_at = r.at, arrival_clock = r.clock, arrival_delay = r.delay_minutes,
       air_minutes = r.air_minutes
  FROM json_to_recordset(%(rows)s::json) AS r
    (flight text, at timestamptz, clock int, delay_minutes int, air_minutes int)
 WHERE f.flight = r.flight AND f.status = 'departed'
