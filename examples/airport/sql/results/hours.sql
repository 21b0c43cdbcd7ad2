-- The worst hours to depart (of those with ten departures)
SELECT h.airport, to_char(h.hour AT TIME ZONE 'America/New_York', 'Dy DD Mon HH24') || ' h' AS hour,
       h.departures, round(h.mean_departure_delay_minutes) AS mean_delay_min,
       w.visib AS visibility_miles, w.wind_speed::int AS wind_mph
FROM headwater_views.airport_hours AS h
LEFT JOIN airport.weather AS w ON w.origin = h.airport AND w.time_hour = h.hour
WHERE h.departures >= 10 ORDER BY h.mean_departure_delay_minutes DESC LIMIT 5
