-- name: access_token
SELECT tenant, scopes, hash, expired, revoked FROM headwater.access_token(%(id)s)

-- name: issue_ticket
SELECT headwater.issue_ticket(%(hash)s, %(tenant)s, %(seconds)s)

-- name: redeem_ticket
SELECT headwater.redeem_ticket(%(hash)s)

-- name: append_once
SELECT a.positions, a.versions, a.duplicates, a.token
FROM (SELECT set_config('headwater.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_once(
  %(once)s, %(streams)s, %(types)s, %(data)s, %(expected_versions)s, %(metadata)s, %(ids)s, %(occurred_at)s,
  %(schema_versions)s, s.tenant) AS a

-- name: views
SELECT v.view, v.kind, v.fingerprint, c.position, greatest(headwater.safe_position() - c.position, 0),
       coalesce(headwater.is_held(l), false),
       (SELECT count(*) FROM headwater.parked AS p WHERE p.view = v.view AND p.status = 'parked')
FROM headwater.views AS v
JOIN headwater.checkpoints AS c USING (view)
LEFT JOIN headwater.leases AS l ON l.name = v.view
WHERE v.view = ANY (%(views)s)

-- name: schema_number
SELECT max(number) FROM headwater.migrations

-- name: view_health
SELECT v.view, coalesce(headwater.state_of(l), 'not driven'),
       (SELECT count(*) FROM headwater.parked AS p WHERE p.view = v.view AND p.status = 'parked'),
       (SELECT s.differing FROM headwater.sampled AS s WHERE s.view = v.view AND s.generation = v.generation)
FROM headwater.views AS v LEFT JOIN headwater.leases AS l ON l.name = v.view
WHERE v.view NOT LIKE '%%~%%' ORDER BY v.view

-- name: present
SELECT p.connection, p.member, p.since
FROM headwater.presence AS p JOIN headwater.presence_holders AS h USING (holder)
WHERE p.channel = %(channel)s AND h.expires_at > clock_timestamp()
ORDER BY p.since, p.connection
LIMIT %(max_rows)s

-- name: enter
INSERT INTO headwater.presence (tenant, channel, connection, member, holder)
SELECT %(tenant)s, p.channel, p.connection, p.member, %(holder)s
FROM unnest(%(channels)s::text[], %(connections)s::text[], %(members)s::text[]) AS p(channel, connection, member)
ON CONFLICT DO NOTHING

-- name: leave
DELETE FROM headwater.presence AS p WHERE p.tenant = %(tenant)s AND p.channel = %(channel)s AND p.connection = %(connection)s

-- name: renew_presence
SELECT headwater.renew_presence(%(holder)s, %(seconds)s)

-- name: end_presence
SELECT headwater.end_presence(%(holder)s)

-- name: checkpoint
SELECT c.position, c.revision,
       (SELECT coalesce(array_agg(p.position), '{}') FROM headwater.parked AS p WHERE p.view = c.view AND p.status = 'parked')
FROM headwater.checkpoints AS c WHERE c.view = %(view)s

-- name: overview_log
SELECT clock_timestamp(), s.position, (SELECT last_value - (NOT is_called)::int FROM headwater.position_seq),
       (SELECT e.recorded_at FROM headwater.events AS e WHERE e.position <= s.position ORDER BY e.position DESC LIMIT 1),
       coalesce((SELECT e.position FROM headwater.events AS e ORDER BY e.position LIMIT 1), 0),
       (SELECT count(*)::int FROM headwater.leases AS l WHERE l.name LIKE 'relay/%%' AND headwater.is_held(l))
FROM (SELECT last_value - (NOT is_called)::int AS position FROM headwater.safe) AS s

-- name: overview_views
SELECT v.view, v.kind, v.fingerprint, c.position, w.behind, coalesce(w.waiting_seconds, 0)::float8,
       (SELECT count(*)::int FROM headwater.parked AS p WHERE p.view = v.view AND p.status = 'parked'),
       CASE WHEN headwater.is_held(l) THEN l.holder END, headwater.state_of(l), l.detail
FROM headwater.views AS v
JOIN headwater.checkpoints AS c USING (view)
LEFT JOIN headwater.leases AS l ON l.name = v.view
CROSS JOIN LATERAL (
  SELECT count(*)::int AS behind, extract(epoch FROM clock_timestamp() - min(e.recorded_at)) AS waiting_seconds
  FROM (SELECT e.recorded_at FROM headwater.events AS e
        WHERE e.position > c.position AND e.position <= %(upto)s
        ORDER BY e.position LIMIT %(max_rows)s) AS e) AS w
WHERE v.view NOT LIKE '%%~%%'
ORDER BY v.view

-- name: parked
SELECT p.position, p.keys, p.reason, p.culprit, p.parked_at, e.stream, e.version, e.type, e.data::text
FROM headwater.parked AS p
LEFT JOIN headwater.events AS e ON e.position = p.position
WHERE p.tenant = %(tenant)s AND p.status = 'parked' AND p.view = %(view)s AND p.position > %(after)s
ORDER BY p.position
LIMIT %(max_rows)s
