-- name: identity
SELECT log_id, epoch FROM headwater.log

-- name: login
SELECT session_user::text, current_user::text,
       bool_or(r.rolsuper), bool_or(r.rolbypassrls),
       coalesce(pg_has_role(session_user, to_regrole(%(role)s), 'MEMBER'), false)
FROM pg_roles AS r WHERE r.rolname IN (session_user, current_user)

-- name: take_role
SELECT set_config('role', %(role)s, false)

-- name: set_tenant
SELECT set_config('headwater.tenant', %(tenant)s, true)

-- name: append
SELECT a.position, a.version, a.token, a.duplicate
FROM (SELECT set_config('headwater.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append(
  %(stream)s, %(type)s, %(data)s::jsonb, %(expected_version)s, %(metadata)s::jsonb, %(idempotency_key)s, s.tenant,
  %(id)s, %(keys)s::text[], %(occurred_at)s::timestamptz, %(schema_version)s) AS a

-- name: append_groups
SELECT a.positions, a.versions, a.token, a.outcomes
FROM (SELECT set_config('headwater.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.append_groups(
  %(streams)s, %(types)s, %(data)s, %(groups)s, %(expected_versions)s, %(metadata)s, %(ids)s, %(keys)s,
  %(occurred_at)s, %(schema_versions)s, s.tenant, %(idempotency_keys)s::jsonb) AS a

-- name: enqueue
SELECT e.id, e.duplicate
FROM (SELECT set_config('headwater.tenant', %(tenant)s, true) AS tenant OFFSET 0) AS s
CROSS JOIN LATERAL headwater.enqueue_jobs(%(queue)s, %(items)s::jsonb, s.tenant) AS e

-- name: safe
SELECT last_value - (NOT is_called)::int FROM headwater.safe

-- name: read
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s
  AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))
  AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
ORDER BY e.position
LIMIT %(max_rows)s

-- name: newest
SELECT e.position
FROM headwater.events AS e
WHERE e.position <= %(upto)s
  AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))
  AND (%(tenant)s::text IS NULL OR e.tenant = %(tenant)s)
ORDER BY e.position DESC
LIMIT %(max_rows)s

-- name: stream
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND e.stream = %(stream)s AND e.version > %(after_version)s
  AND (%(types)s::text[] IS NULL OR e.type = ANY (%(types)s))
  AND e.position >= (SELECT s.first_position FROM headwater.streams AS s WHERE s.tenant = %(tenant)s AND s.stream = %(stream)s)
ORDER BY e.version
LIMIT %(max_rows)s

-- name: registered
SELECT DISTINCT ON (t.type) t.type, t.schema_version, t.stream_pattern, t.schema
FROM headwater.event_types AS t
ORDER BY t.type, t.schema_version DESC

-- name: register_type
SELECT headwater.register_type(%(type)s, %(schema_version)s, %(stream_pattern)s, %(schema)s::jsonb)

-- name: register_upcasts
SELECT headwater.register_upcasts(%(type)s, %(schema_version)s, %(upcasts)s::jsonb)

-- name: with_key
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.key_events AS k JOIN headwater.events AS e ON e.position = k.position
WHERE k.tenant = %(tenant)s AND k.key = %(key)s AND e.type = ANY (%(types)s::text[]) ORDER BY e.position LIMIT %(max_rows)s
