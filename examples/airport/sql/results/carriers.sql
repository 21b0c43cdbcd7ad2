-- The carriers that keep people waiting
SELECT a.name AS carrier, c.departures, c.cancellations AS cancelled,
       round(c.mean_delay_minutes, 1) AS mean_delay_min, c.longest_delay_minutes AS longest_min
FROM headwater_views.carrier_delays AS c LEFT JOIN airport.airlines AS a USING (carrier)
ORDER BY c.mean_delay_minutes DESC NULLS LAST LIMIT 5
