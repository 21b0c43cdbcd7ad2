-- One call for one event or many, with three texts, which every driver passes alike.

-- name: numbered
SELECT a.position, a.version, a.token, a.duplicate
FROM (SELECT set_config('headwater.tenant', $1::text, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_many($2::text::jsonb, $3::text, s.tenant) AS a

-- name: named
SELECT a.position, a.version, a.token, a.duplicate
FROM (SELECT set_config('headwater.tenant', CAST(:tenant AS text), true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_many(CAST(CAST(:events AS text) AS jsonb), CAST(:idempotency_key AS text), s.tenant) AS a

-- name: formatted
SELECT a.position, a.version, a.token, a.duplicate
FROM (SELECT set_config('headwater.tenant', %(tenant)s::text, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_many(%(events)s::text::jsonb, %(idempotency_key)s::text, s.tenant) AS a
