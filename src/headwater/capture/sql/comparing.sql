-- name: open
SELECT headwater.open_comparison(%(id)s)

-- name: begin
SELECT headwater.begin_comparison(%(id)s)

-- name: isolate
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ

-- name: read
SELECT r.snapshot, r.shape::text, r.rows::text, r.last, r.versions::text, jsonb_array_length(r.rows) FROM headwater.read_rows(%(id)s, %(max_rows)s) AS r

-- name: lsn
SELECT pg_current_wal_insert_lsn()::text

-- name: snapshot
SELECT pg_current_snapshot()::text

-- name: want
SELECT headwater.want_replication(%(lsn)s::pg_lsn) >= %(lsn)s::pg_lsn

-- name: compare
SELECT headwater.compare_rows(%(id)s, %(snapshot)s, %(shape)s::jsonb, %(rows)s::jsonb, %(last)s::text[], %(versions)s::jsonb, %(lsn)s::pg_lsn)

-- name: living
SELECT coalesce(jsonb_agg(jsonb_build_array(l.tenant, l.stream, l.version, l.key) ORDER BY l.tenant, l.stream), '[]')::text, count(*),
       (array_agg(l.tenant ORDER BY l.tenant DESC, l.stream DESC))[1], (array_agg(l.stream ORDER BY l.tenant DESC, l.stream DESC))[1]
FROM headwater.living_rows(%(id)s, %(after_tenant)s, %(after_stream)s, %(max_rows)s) AS l

-- name: missing
SELECT m.snapshot, m.missing::text, jsonb_array_length(m.missing) FROM headwater.missing_rows(%(id)s, %(living)s::jsonb) AS m

-- name: compare_missing
SELECT headwater.compare_missing(%(id)s, %(snapshot)s, %(missing)s::jsonb, %(lsn)s::pg_lsn)

-- name: end
SELECT headwater.end_comparison(%(id)s, %(snapshot)s)

-- name: state
SELECT k.state, k.way, r.state, r.detail, k.way = 'triggers' OR coalesce(k.followed = r.generation, false), k.comparing FROM headwater.captures AS k LEFT JOIN headwater.replication AS r ON k.way = 'replication' WHERE k.id = %(id)s
