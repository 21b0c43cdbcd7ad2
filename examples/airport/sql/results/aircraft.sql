-- The aircraft that flew most
SELECT a.key AS tail, p.manufacturer, p.model, (a.document ->> 'flights')::int AS flights,
       round((a.document ->> 'minutes_flown')::numeric / 60) AS hours_flown,
       a.document ->> 'airport' AS last_seen
FROM headwater_views.aircraft AS a LEFT JOIN airport.planes AS p ON p.tailnum = a.key
ORDER BY (a.document ->> 'minutes_flown')::int DESC, a.key LIMIT 5
