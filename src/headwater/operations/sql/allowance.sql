-- name: lag
-- The live view that is furthest behind, of those that a relay drives, and by how many seconds.
SELECT c.view, extract(epoch FROM clock_timestamp() - e.recorded_at)::float8
FROM headwater.checkpoints AS c
JOIN headwater.leases AS l ON l.name = c.view AND headwater.is_held(l) AND l.state = 'running'
CROSS JOIN LATERAL (
  SELECT e.recorded_at FROM headwater.events AS e
  WHERE e.position > c.position AND e.position <= (SELECT last_value FROM headwater.safe)
  ORDER BY e.position LIMIT 1) AS e
WHERE c.view NOT LIKE '%~%'
ORDER BY 2 DESC LIMIT 1
