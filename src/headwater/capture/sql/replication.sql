-- name: slot
SELECT r.generation, r.slot, r.state, r.applied::text, r.wanted::text, s.slot_name IS NOT NULL, coalesce(s.active, false),
       CASE WHEN s.slot_name IS NULL THEN 'the slot is gone'
            WHEN to_jsonb(s) ->> 'invalidation_reason' <> 'wal_removed' THEN 'Postgres has invalidated the slot: ' || (to_jsonb(s) ->> 'invalidation_reason')
            WHEN s.wal_status = 'lost' THEN 'Postgres has removed WAL that the slot needs' END,
       s.confirmed_flush_lsn::text,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint,
       ARRAY(SELECT p.pubname::text FROM pg_publication AS p WHERE p.pubname = 'headwater_replication' OR EXISTS (
         SELECT FROM headwater.captures AS k WHERE k.way = 'replication' AND p.pubname = 'headwater_capture_' || k.id
           AND k.state IN ('backfilling', 'live') AND k.joined <= r.applied) ORDER BY 1),
       EXISTS (SELECT FROM headwater.captures AS k WHERE k.way = 'replication' AND k.state IN ('backfilling', 'live') AND k.joined <= r.applied
               AND k.followed IS DISTINCT FROM r.generation)
FROM headwater.replication AS r
LEFT JOIN pg_replication_slots AS s ON s.slot_name = r.slot AND s.database = current_database() AND s.plugin = 'pgoutput'

-- name: lose
SELECT headwater.lose_replication(%(generation)s, %(why)s)

-- name: follow
SELECT headwater.follow_replication(%(generation)s, %(publications)s)

-- name: begin
BEGIN

-- name: patience
SELECT set_config('idle_in_transaction_session_timeout', '60s', true)

-- name: move
SELECT headwater.move_replication(%(generation)s, %(after)s::pg_lsn, %(upto)s::pg_lsn)

-- name: commit
COMMIT

-- name: apply
SELECT headwater.apply_replication(%(capture)s, %(rows)s::jsonb)

-- name: truncate
SELECT headwater.truncate_replication(%(capture)s, %(xid)s)

-- name: describe
SELECT d.id, d.why, d.identity, d.required FROM headwater.describe_replication(%(relation)s, %(columns)s::jsonb, %(identity)s) AS d

-- name: requirements
SELECT current_setting('wal_level'), (SELECT r.rolreplication OR r.rolsuper FROM pg_roles AS r WHERE r.rolname = session_user),
       session_user::text, current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots)::int

-- name: next_slot
SELECT n.generation, 'headwater_' || l.log_id || '_' || d.oid || '_' || n.generation, 'headwater_' || l.log_id || '_' || d.oid || '_'
FROM headwater.log AS l, pg_database AS d, (SELECT nextval('headwater.replication_generation')::int AS generation) AS n WHERE d.datname = current_database()

-- name: orphans
SELECT s.slot_name::text FROM pg_replication_slots AS s
WHERE starts_with(s.slot_name, %(prefix)s) AND NOT s.active AND NOT EXISTS (SELECT FROM headwater.replication AS r WHERE r.slot = s.slot_name AND r.state = 'live')

-- name: publish_nothing
SELECT headwater.publish_nothing()

-- name: unpublish_nothing
SELECT headwater.unpublish_nothing()

-- name: begin_slot
SELECT headwater.begin_replication(%(slot)s, %(generation)s, %(lsn)s::pg_lsn)

-- name: unneeded
SELECT r.slot, r.generation FROM headwater.replication AS r
WHERE NOT EXISTS (SELECT FROM headwater.captures AS k WHERE k.way = 'replication' AND k.state <> 'released')

-- name: end_slot
SELECT headwater.end_replication()

-- name: snapshot
SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint FROM pg_current_snapshot() AS s

-- name: joined
SELECT k.way, k.joined IS NOT NULL, k.comparing, k.state FROM headwater.captures AS k WHERE k.id = %(id)s

-- name: join
SELECT headwater.join_replication(%(id)s, l.lsn), headwater.want_replication(l.lsn) FROM (SELECT pg_current_wal_insert_lsn() AS lsn OFFSET 0) AS l

-- name: monitor
SELECT r.state, r.detail, r.slot, coalesce(s.active, false), coalesce(s.wal_status, 'gone'),
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, r.applied), 0)::bigint,
       extract(epoch FROM clock_timestamp() - r.applied_at)::float8, (SELECT g.setting::bigint FROM pg_settings AS g WHERE g.name = 'max_slot_wal_keep_size')
FROM headwater.replication AS r
LEFT JOIN pg_replication_slots AS s ON s.slot_name = r.slot AND s.database = current_database()
