-- name: create
CREATE TABLE {table} (
  tenant text NOT NULL,
  key text NOT NULL,
  document jsonb NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (tenant, key)
) WITH (fillfactor = 70)

-- name: no_statistics
-- What is opened stays in the table: ANALYZE would keep samples of it elsewhere.
ALTER TABLE {table} ALTER COLUMN document SET STATISTICS 0

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
CREATE OR REPLACE VIEW {view} WITH (security_invoker = true) AS SELECT tenant, key, document, position FROM {table}

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
WITH kept AS (
  UPDATE headwater.checkpoints AS f
  SET changes_from = greatest(
    f.changes_from, (SELECT min(c.position) - %(retained)s FROM headwater.checkpoints AS c WHERE c.view = ANY (%(readers)s)))
  WHERE f.view = %(view)s
  RETURNING changes_from)
DELETE FROM {table} WHERE after_position <= (SELECT changes_from FROM kept)

-- name: first_change
SELECT after_position FROM {table} WHERE after_position > %(after)s AND after_position <= %(upto)s ORDER BY after_position LIMIT 1

-- name: size
SELECT coalesce(pg_total_relation_size(to_regclass(%(table)s)), 0)

-- name: rewrite
VACUUM (FULL, VERBOSE) {table}

-- name: stored
SELECT d.tenant, d.key, d.document::text FROM {table} AS d

-- name: rows
SELECT count(*) FROM {table}
