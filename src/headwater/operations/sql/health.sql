-- name: views
-- A candidate that several processes build is where the slowest of its slices is.
SELECT v.view, v.kind, v.fingerprint,
       coalesce((SELECT min(s.position) FROM headwater.checkpoints AS s WHERE v.view LIKE '%%~next' AND starts_with(s.view, v.view || '~')), c.position) AS position,
       headwater.state_of(l) AS state, l.detail,
       CASE WHEN headwater.is_held(l) THEN l.holder END AS holder,
       (SELECT count(*) FROM headwater.parked AS p
        WHERE (p.view = v.view OR (v.view LIKE '%%~next' AND starts_with(p.view, v.view || '~'))) AND p.status = 'parked') AS parked
FROM headwater.views AS v
JOIN headwater.checkpoints AS c USING (view)
LEFT JOIN headwater.leases AS l ON l.name = v.view
WHERE v.view NOT LIKE '%%~%%' OR v.view LIKE '%%~next'
ORDER BY v.view

-- name: behind
SELECT count(*)::int FROM (
  SELECT 1 FROM headwater.events WHERE position > %(after)s AND position <= %(upto)s LIMIT 1000000) AS waiting

-- name: parked
SELECT p.view, p.position, p.tenant, p.keys, p.reason, p.culprit, p.status, p.parked_at
FROM headwater.parked AS p
WHERE (%(view)s::text IS NULL OR p.view = %(view)s)
ORDER BY p.view, p.position
LIMIT %(limit)s

-- name: event
SELECT to_jsonb(e) FROM headwater.events AS e WHERE e.position = %(position)s

-- name: sequence
SELECT seqcache, seqincrement, seqcycle,
       EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass
               AND d.objid = s.seqrelid AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)
FROM pg_sequence AS s WHERE s.seqrelid = 'headwater.position_seq'::regclass

-- name: positions
SELECT (SELECT last_value - (NOT is_called)::int FROM headwater.position_seq),
       (SELECT last_value - (NOT is_called)::int FROM headwater.safe)

-- name: appenders
SELECT pid, gid, state, age_seconds, idle_seconds, application_name, login::text FROM headwater.appenders()

-- name: limits
SELECT idle_append_seconds FROM headwater.log

-- name: relays
SELECT count(*)::int FROM headwater.leases AS l WHERE l.name LIKE 'relay/%%' AND headwater.is_held(l)

-- name: blocks
SELECT count(*)::int FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'headwater.events'::regclass
  AND substr(c.relname, 8)::bigint > headwater.block_of(clock_timestamp())

-- name: signal
SELECT pg_has_role('headwater_owner', 'pg_signal_backend', 'MEMBER') AND pg_has_role('headwater_owner', 'pg_read_all_stats', 'MEMBER')

-- name: bypassing
SELECT r.rolname FROM pg_roles AS r
WHERE (r.rolsuper OR r.rolbypassrls) AND (r.rolname LIKE 'headwater\_%%'
  OR EXISTS (SELECT FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid
             WHERE m.member = r.oid AND g.rolname IN ('headwater_app', 'headwater_relay', 'headwater_operator') AND NOT r.rolsuper))

-- name: unforced
SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('headwater', 'headwater_views') AND c.relkind IN ('r', 'p')
  AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped)
  AND NOT (c.relrowsecurity AND c.relforcerowsecurity)

-- name: oldest_snapshot
SELECT coalesce(max(age(backend_xmin)), 0)::bigint, coalesce(extract(epoch FROM max(clock_timestamp() - xact_start) FILTER (WHERE backend_xmin IS NOT NULL)), 0)::float8
FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()

-- name: jobs
SELECT (SELECT count(*)::int FROM headwater.job_queues),
       (SELECT count(*)::int FROM headwater.job_dead AS d WHERE d.replayed_as IS NULL),
       (SELECT string_agg(q.queue, ', ' ORDER BY q.queue) FROM headwater.job_queues AS q
        WHERE NOT EXISTS (SELECT FROM headwater.job_workers AS w WHERE w.expires_at > clock_timestamp())
          AND (headwater.queue_waits(q.queue_id) OR EXISTS (SELECT FROM headwater.job_lanes AS l WHERE l.queue_id = q.queue_id AND headwater.lane_waits(l.lane_id)))),
       (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = 'headwater' AND relname LIKE 'job\_%%'),
       (SELECT count(*)::int FROM pg_class AS c WHERE c.relnamespace = 'headwater'::regnamespace AND c.relname ~ '^jobs_[0-3]$'
          AND pg_relation_size(c.oid) > 0)

-- name: sagas
SELECT count(*)::int, count(*) FILTER (WHERE s.state = 'handed over')::int, count(*) FILTER (WHERE s.state = 'stopped')::int
FROM headwater.sagas AS s WHERE s.ended_at IS NULL

-- name: sampled
SELECT v.view, s.differing, s.detail, extract(epoch FROM s.verified_at)::float8
FROM headwater.views AS v JOIN headwater.sampled AS s ON s.view = v.view AND s.generation = v.generation
ORDER BY v.view
