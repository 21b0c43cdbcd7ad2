-- What fog does
SELECT CASE WHEN w.visib < 1 THEN '0 to 1' WHEN w.visib < 3 THEN '1 to 3' WHEN w.visib < 10 THEN '3 to 10'
            ELSE '10 and more' END AS visibility_miles,
       sum(h.departures)::int AS departures,
       round(sum(h.departures * h.mean_departure_delay_minutes) / sum(h.departures), 1) AS mean_delay_min
FROM headwater_views.airport_hours AS h
JOIN airport.weather AS w ON w.origin = h.airport AND w.time_hour = h.hour
WHERE h.departures > 0 GROUP BY 1 ORDER BY min(w.visib)
