-- The busiest routes
SELECT r.origin AS "from", r.dest AS "to", coalesce(a.name, 'not in the source') AS airport,
       r.arrivals, r.diversions AS diverted, round(r.mean_air_minutes) AS air_min,
       round(r.mean_delay_minutes, 1) AS mean_delay_min
FROM headwater_views.routes AS r LEFT JOIN airport.airports AS a ON a.faa = r.dest
ORDER BY r.arrivals DESC, r.origin, r.dest LIMIT 5
