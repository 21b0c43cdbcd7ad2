-- name: create
CREATE TABLE {table} (
  tenant text NOT NULL,
  key text NOT NULL,
  document jsonb NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (tenant, key)
) WITH (fillfactor = 70)

-- name: create_changes
CREATE TABLE {table} (
  after_position bigint NOT NULL,
  tenant text NOT NULL,
  key text NOT NULL,
  old jsonb,
  new jsonb
)

-- name: index_changes
CREATE INDEX ON {table} (after_position)

-- name: publish
CREATE VIEW {view} WITH (security_invoker = true) AS SELECT tenant, key, document, position FROM {table}

-- name: load
SELECT d.tenant, d.key, d.document::text FROM {table} AS d
JOIN unnest(%(tenants)s, %(keys)s) AS k(tenant, key) ON d.tenant = k.tenant AND d.key = k.key

-- name: write
INSERT INTO {table} AS d (tenant, key, document, position)
SELECT * FROM unnest(%(tenants)s, %(keys)s, %(documents)s, %(positions)s)
ON CONFLICT (tenant, key) DO UPDATE SET document = excluded.document, position = excluded.position

-- name: write_batch
WITH moved AS ({advance})
INSERT INTO {table} AS d (tenant, key, document, position)
SELECT * FROM unnest(%(tenants)s, %(keys)s, %(documents)s, %(positions)s) WHERE (SELECT position FROM moved) IS NOT NULL
ON CONFLICT (tenant, key) DO UPDATE SET document = excluded.document, position = excluded.position

-- name: remove
DELETE FROM {table} AS d USING unnest(%(tenants)s, %(keys)s) AS k(tenant, key) WHERE d.tenant = k.tenant AND d.key = k.key

-- name: note_changes
INSERT INTO {table} (after_position, tenant, key, old, new)
SELECT %(upto)s, * FROM unnest(%(tenants)s, %(keys)s, %(old)s, %(new)s)

-- name: prune_changes
DELETE FROM {table} WHERE after_position <= (SELECT min(c.position) FROM headwater.checkpoints AS c WHERE c.view = ANY (%(readers)s))

-- name: first_change
SELECT after_position FROM {table} WHERE after_position > %(after)s AND after_position <= %(upto)s ORDER BY after_position LIMIT 1

-- name: stored
SELECT d.tenant, d.key, d.document::text FROM {table} AS d

-- name: rows
SELECT count(*) FROM {table}

-- name: events
SELECT e.position, e.tenant, e.type, e.schema_version, e.data::text
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
ORDER BY e.position

-- name: recorded_events
SELECT e.position, e.tenant, e.type, e.schema_version, e.data::text,
       e.stream, e.version, e.id, e.recorded_at, e.occurred_at, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
ORDER BY e.position

-- name: touched
SELECT DISTINCT jsonb_build_array(e.tenant, e.data ->> %(key)s::text)::text
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND e.position <> ALL (%(parked)s::bigint[]) AND e.data ->> %(key)s::text IS NOT NULL
