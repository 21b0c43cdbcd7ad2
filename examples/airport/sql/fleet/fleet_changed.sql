SELECT manufacturer, engine, count(*) AS planes, sum(seats) AS seats
FROM airport_planes
GROUP BY manufacturer, engine
