-- What Headwater runs in a transaction of an application's own, whatever its driver: each takes texts
-- alone, which every driver passes alike. Parameters are written :name, and casts CAST(... AS ...).

-- name: append
SELECT a.position, a.version, a.token, a.duplicate
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_many(CAST(CAST(:events AS text) AS jsonb), CAST(:idempotency_key AS text), s.tenant) AS a

-- name: claim
SELECT c.state, encode(c.answer, 'base64')
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.claim(CAST(:key AS text), decode(CAST(:request_hash AS text), 'hex'), s.tenant, false) AS c

-- name: settle
SELECT headwater.settle(CAST(:key AS text), NULL, NULL, decode(CAST(:answer AS text), 'base64'), s.tenant)
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s

-- name: enqueue
SELECT e.id, e.duplicate
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.enqueue_jobs(CAST(:queue AS text), CAST(CAST(:items AS text) AS jsonb), s.tenant) AS e

-- name: answer_is_of
SELECT headwater.answer_is_of(CAST(:key AS text), CAST(CAST(:key_ids AS text) AS uuid[]), s.tenant)
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s
