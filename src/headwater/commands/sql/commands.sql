-- name: begin
SELECT set_config('headwater.tenant', %(tenant)s, true), set_config('transaction_read_only', 'on', true)

-- name: streams
-- Each stream's events after its snapshot, if it has one: which is told with the first of them, or alone. What
-- bounds the events is of one relation, kept apart by OFFSET 0, so that the scan uses all of it and prunes blocks.
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys,
       a.n, a.version, a.position, CASE WHEN e.version IS NULL OR e.version = a.version + 1 THEN a.state::text END
FROM (
  SELECT asked.n, asked.stream, n.version, n.position, n.state,
         coalesce(n.version, 0) AS after_version, coalesce(n.position + 1, s.first_position) AS first_position
  FROM unnest(%(names)s::text[], %(fingerprints)s::text[]) WITH ORDINALITY AS asked(stream, fingerprint, n)
  JOIN headwater.streams AS s ON s.tenant = %(tenant)s AND s.stream = asked.stream
  LEFT JOIN LATERAL (
    SELECT n.version, n.position, n.state FROM headwater.snapshots AS n
    WHERE s.version >= %(least)s AND n.tenant = %(tenant)s AND n.stream = asked.stream
      AND n.fingerprint = decode(asked.fingerprint, 'hex') AND n.version <= s.version LIMIT 1) AS n ON true
  OFFSET 0) AS a
LEFT JOIN LATERAL (
  SELECT * FROM headwater.events AS e
  WHERE e.tenant = %(tenant)s AND e.stream = a.stream AND e.version > a.after_version AND e.position >= a.first_position
) AS e ON true
ORDER BY a.n, e.version

-- name: keep_snapshot
INSERT INTO headwater.snapshots AS s (tenant, stream, fingerprint, version, position, state)
VALUES (%(tenant)s, %(stream)s, decode(%(fingerprint)s, 'hex'), %(version)s, %(position)s, %(state)s::jsonb)
ON CONFLICT (tenant, stream, fingerprint) DO UPDATE
  SET version = excluded.version, position = excluded.position, state = excluded.state, made_at = clock_timestamp()
  WHERE s.version < excluded.version

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
