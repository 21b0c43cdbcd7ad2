-- name: due
SELECT e.endpoint FROM headwater.webhook_endpoints AS e
WHERE e.state = 'active' AND (
  (e.position < %(safe)s AND (SELECT count(*) FROM headwater.webhook_pending AS p WHERE p.endpoint = e.endpoint) < %(most)s)
  OR EXISTS (SELECT FROM headwater.webhook_pending AS p WHERE p.endpoint = e.endpoint AND p.generation < e.generation))
ORDER BY e.endpoint

-- name: lock
SELECT e.tenant, e.types, e.generation, e.position FROM headwater.webhook_endpoints AS e
WHERE e.endpoint = %(endpoint)s AND e.state = 'active' FOR NO KEY UPDATE SKIP LOCKED

-- name: again
WITH moved AS (
  UPDATE headwater.webhook_pending AS p SET generation = %(generation)s
  WHERE p.endpoint = %(endpoint)s AND p.generation < %(generation)s RETURNING p.position
) SELECT e.position, e.stream FROM moved AS m JOIN headwater.events AS e ON e.position = m.position ORDER BY e.position

-- name: following
WITH run AS MATERIALIZED (
  SELECT e.position, e.stream, e.tenant, e.type FROM headwater.events AS e
  WHERE e.position > %(after)s AND e.position <= %(safe)s ORDER BY e.position LIMIT %(most)s
), wanted AS (
  SELECT r.position, r.stream FROM run AS r WHERE r.tenant = %(tenant)s AND r.type = ANY (%(types)s::text[])
), noted AS (
  INSERT INTO headwater.webhook_pending (endpoint, position, generation) SELECT %(endpoint)s, w.position, %(generation)s FROM wanted AS w
), moved AS (
  UPDATE headwater.webhook_endpoints AS n SET position = CASE WHEN (SELECT count(*) FROM run) < %(most)s THEN %(safe)s ELSE (SELECT max(r.position) FROM run AS r) END
  WHERE n.endpoint = %(endpoint)s
) SELECT w.position, w.stream FROM wanted AS w ORDER BY w.position

-- name: message
SELECT n.url, n.private, n.secret, CASE WHEN n.old_secret_until > clock_timestamp() THEN n.old_secret END, n.failing_since IS NOT NULL,
       e.id, e.type, e.schema_version, e.stream, e.version, e.position, coalesce(e.occurred_at, e.recorded_at), e.data::text
FROM headwater.webhook_pending AS p JOIN headwater.webhook_endpoints AS n USING (endpoint) JOIN headwater.events AS e ON e.position = p.position
WHERE p.endpoint = %(endpoint)s AND p.position = %(position)s AND p.generation = %(generation)s AND n.generation = %(generation)s AND n.state = 'active'

-- name: delivered
WITH gone AS (DELETE FROM headwater.webhook_pending AS p WHERE p.endpoint = %(endpoint)s AND p.position = %(position)s AND p.generation = %(generation)s)
UPDATE headwater.webhook_endpoints AS n SET failing_since = NULL, detail = NULL
WHERE n.endpoint = %(endpoint)s AND %(failing)s AND n.state = 'active'

-- name: failed
UPDATE headwater.webhook_endpoints AS n SET failing_since = coalesce(n.failing_since, clock_timestamp()), detail = %(detail)s,
  state = CASE WHEN %(park)s THEN 'parked' ELSE n.state END
WHERE n.endpoint = %(endpoint)s AND n.generation = %(generation)s AND n.state = 'active'

-- name: add
INSERT INTO headwater.webhook_endpoints (endpoint, tenant, url, types, secret, private, position)
VALUES (%(endpoint)s, %(tenant)s, %(url)s, %(types)s, %(secret)s, %(private)s, coalesce(%(after)s, (SELECT s.last_value - (NOT s.is_called)::int FROM headwater.safe AS s)))
ON CONFLICT DO NOTHING RETURNING endpoint

-- name: remove
DELETE FROM headwater.webhook_endpoints AS n WHERE n.endpoint = %(endpoint)s RETURNING n.endpoint

-- name: rotate
UPDATE headwater.webhook_endpoints AS n SET old_secret = n.secret, old_secret_until = clock_timestamp() + make_interval(secs => %(seconds)s), secret = %(secret)s
WHERE n.endpoint = %(endpoint)s RETURNING n.endpoint

-- name: pause
UPDATE headwater.webhook_endpoints AS n SET state = 'paused' WHERE n.endpoint = %(endpoint)s RETURNING n.endpoint

-- name: resume
UPDATE headwater.webhook_endpoints AS n SET state = 'active', detail = NULL, failing_since = NULL, generation = n.generation + (n.state <> 'active')::int
WHERE n.endpoint = %(endpoint)s RETURNING n.endpoint

-- name: replay
WITH gone AS (DELETE FROM headwater.webhook_pending AS p WHERE p.endpoint = %(endpoint)s)
UPDATE headwater.webhook_endpoints AS n SET state = 'active', detail = NULL, failing_since = NULL, generation = n.generation + 1, position = %(after)s
WHERE n.endpoint = %(endpoint)s RETURNING n.endpoint

-- name: list
SELECT n.endpoint, n.tenant, n.url, n.types, n.state, n.position, (SELECT count(*)::int FROM headwater.webhook_pending AS p WHERE p.endpoint = n.endpoint),
       n.failing_since, n.detail
FROM headwater.webhook_endpoints AS n ORDER BY n.endpoint
