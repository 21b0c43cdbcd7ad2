-- name: begin
SELECT set_config('headwater.tenant', %(tenant)s, true), set_config('transaction_read_only', 'on', true)

-- name: streams
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.streams AS s
CROSS JOIN LATERAL (
  SELECT * FROM headwater.events AS e
  WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position) AS e
WHERE s.tenant = %(tenant)s AND s.stream = ANY (%(names)s)
ORDER BY e.stream, e.version

-- name: key_version
SELECT n.version FROM headwater.keys AS n WHERE n.tenant = %(tenant)s AND n.key = %(name)s

-- name: key
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.key_events AS k JOIN headwater.events AS e ON e.position = k.position
WHERE k.tenant = %(tenant)s AND k.key = %(name)s AND e.type = ANY (%(types)s)
ORDER BY e.position

-- name: claim
SELECT c.state, c.positions, c.versions FROM headwater.claim(%(key)s, %(hash)s) AS c

-- name: settle
SELECT headwater.settle(%(key)s, %(positions)s::bigint[], %(versions)s::int[])

-- name: require
SELECT headwater.require(%(streams)s::jsonb, %(keys)s::jsonb)
