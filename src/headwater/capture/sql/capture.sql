-- name: lock_timeout
SELECT set_config('lock_timeout', %(milliseconds)s || 'ms', true)

-- name: capture
SELECT id, name, state FROM headwater.capture_table(%(table)s, %(options)s::jsonb)

-- name: release
SELECT headwater.release_table(%(name)s)

-- name: backfill
SELECT seen, appended, more FROM headwater.backfill(%(id)s, %(max_rows)s)

-- name: find
SELECT id, name, state FROM headwater.find_capture(%(name)s)

-- name: progress
SELECT k.backfilled_rows, (SELECT greatest(sum(c.reltuples), 0)::bigint FROM pg_class AS c
                           WHERE c.oid IN (SELECT headwater.capture_tables(k.relation)) AND c.relkind = 'r')
FROM headwater.captures AS k WHERE k.id = %(id)s

-- name: captures
SELECT k.id, k.name, coalesce(headwater.qualified(k.relation), k.table_name), k.state, k.schema_version,
       CASE k.tenant_from WHEN 'fixed' THEN k.fixed_tenant WHEN 'session' THEN 'the session''s'
         ELSE 'column ' || (SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = k.relation AND a.attnum = k.tenant_column) END,
       k.way,
       k.backfilled_rows, k.detail, k.captured_at
FROM headwater.captures AS k WHERE k.state <> 'released' ORDER BY k.name

-- name: problems
SELECT k.name, k.table_name, k.state, k.detail, headwater.qualified(k.relation) AS now,
       ARRAY(SELECT headwater.qualified(t.tgrelid) || ' ' || t.tgname FROM pg_trigger AS t
             WHERE t.tgfoid = p.oid AND t.tgenabled IN ('D', 'R') ORDER BY 1) AS disabled,
       ARRAY(SELECT headwater.qualified(c.c) FROM headwater.capture_tables(k.relation) AS c(c)
             WHERE k.relation IN (SELECT oid FROM pg_class) AND k.way = 'triggers'
               AND (SELECT count(*) FROM pg_trigger AS t WHERE t.tgrelid = c.c AND t.tgfoid = p.oid) < 4 ORDER BY 1) AS untriggered,
       k.way = 'replication' AND NOT EXISTS (
         SELECT FROM pg_publication AS b JOIN pg_publication_rel AS t ON t.prpubid = b.oid
         WHERE b.pubname = 'headwater_capture_' || k.id AND t.prrelid = k.relation AND b.pubinsert AND b.pubupdate AND b.pubdelete AND b.pubtruncate
           AND t.prqual IS NULL AND t.prattrs IS NULL) AS unpublished
FROM headwater.captures AS k
LEFT JOIN pg_proc AS p ON p.pronamespace = 'headwater_captures'::regnamespace AND p.proname = 'changes_' || k.id
WHERE k.state <> 'released' ORDER BY k.name

-- name: types
SELECT DISTINCT ON (t.type) t.type, t.schema_version, t.stream_pattern, t.schema
FROM headwater.event_types AS t WHERE %(like)s::text IS NULL OR t.type LIKE %(like)s
ORDER BY t.type, t.schema_version DESC

-- name: only_tenant
SELECT min(k.fixed_tenant) FROM headwater.captures AS k WHERE k.state <> 'released'
HAVING count(DISTINCT k.fixed_tenant) = 1 AND bool_and(k.tenant_from = 'fixed')
