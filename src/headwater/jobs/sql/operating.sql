-- name: queues
SELECT q.queue, q.paused, coalesce(l.waiting, 0)::int + coalesce(w.ready, 0)::int + coalesce(u.waiting, 0)::int, coalesce(w.later, 0)::int + coalesce(u.later, 0)::int,
       coalesce(r.running, 0)::int, greatest(extract(epoch FROM clock_timestamp() - least(l.oldest, w.oldest, u.oldest)), 0)::float8,
       coalesce(t.settled, 0)::bigint, coalesce(t.failed, 0)::bigint,
       (SELECT count(*)::int FROM headwater.job_dead AS d WHERE d.queue_id = q.queue_id AND d.replayed_as IS NULL)
FROM headwater.job_queues AS q
LEFT JOIN LATERAL (
  SELECT sum(n.waiting) AS waiting, min(n.oldest) AS oldest
  FROM headwater.job_lanes AS l
  CROSS JOIN LATERAL (SELECT * FROM headwater.job_cursors AS c WHERE c.lane_id = l.lane_id ORDER BY c.seq DESC LIMIT 1) AS c
  CROSS JOIN LATERAL (
    SELECT count(*) AS waiting, min(j.enqueued_at) AS oldest FROM (
      SELECT j.enqueued_at FROM headwater.jobs AS j
      WHERE j.lane_id = l.lane_id AND NOT j.constrained
        AND (j.xid, j.id) > (greatest(pg_snapshot_xmax(c.before), c.xid), CASE WHEN c.xid >= pg_snapshot_xmax(c.before) THEN c.id ELSE 0 END)
        AND NOT EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = j.id)
      LIMIT %(most)s) AS j) AS n
  WHERE l.queue_id = q.queue_id) AS l ON true
LEFT JOIN LATERAL (
  SELECT count(*) FILTER (WHERE k.state = 'ready' AND coalesce(y.due_at, k.enqueued_at) <= clock_timestamp()) AS ready,
         count(*) FILTER (WHERE k.state = 'blocked' OR y.due_at > clock_timestamp()) AS later,
         min(coalesce(y.due_at, k.enqueued_at)) FILTER (WHERE k.state = 'ready') AS oldest
  FROM headwater.job_waiting AS k LEFT JOIN headwater.job_ready AS y ON y.id = k.id AND y.attempt = k.attempt AND k.state = 'ready'
  WHERE k.queue_id = q.queue_id) AS w ON true
LEFT JOIN LATERAL (  -- with a key or a delay, and not looked at by any worker yet
  SELECT count(*) FILTER (WHERE n.due) AS waiting, count(*) FILTER (WHERE NOT n.due) AS later, min(n.enqueued_at) FILTER (WHERE n.due) AS oldest FROM (
    SELECT j.enqueued_at, coalesce(j.run_at <= clock_timestamp(), true) AS due FROM headwater.jobs AS j, (
      SELECT * FROM headwater.job_admissions AS a WHERE a.queue_id = q.queue_id ORDER BY a.seq DESC LIMIT 1) AS a
    WHERE j.queue_id = q.queue_id AND j.constrained AND j.xid >= pg_snapshot_xmin(a.upto) AND NOT pg_visible_in_snapshot(j.xid, a.upto)
      AND NOT EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = j.id)
    LIMIT %(most)s) AS n) AS u ON true
LEFT JOIN LATERAL (
  SELECT count(*) AS running FROM headwater.job_workers AS n CROSS JOIN LATERAL headwater.open_jobs(n.worker, q.queue_id) AS o) AS r ON true
LEFT JOIN LATERAL (
  SELECT sum(n.settled) AS settled, sum(n.failed) AS failed FROM (
    SELECT t.settled, t.failed FROM headwater.job_totals AS t WHERE t.queue_id = q.queue_id
    UNION ALL
    SELECT cardinality(s.settled), s.failed FROM headwater.job_steps AS s WHERE s.queue_id = q.queue_id AND NOT s.base) AS n) AS t ON true
ORDER BY q.queue

-- name: show
SELECT j.id, q.queue, l.lane, j.tenant, j.job, j.arguments::text, j.key,
       CASE WHEN o.outcome IS NOT NULL THEN o.outcome WHEN d.id IS NOT NULL THEN 'dead' WHEN r.worker IS NOT NULL THEN 'running'
            WHEN j.state IS NOT NULL THEN CASE j.state WHEN 'blocked' THEN 'waiting for its key' ELSE 'waiting' END
            WHEN j.unread THEN 'waiting' ELSE 'done' END,
       coalesce(j.attempt, 1), j.enqueued_at, r.worker, p.done, p.note, o.result::text,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('attempt', f.attempt, 'at', f.at, 'reason', f.reason) ORDER BY f.at), '[]')
        FROM headwater.job_failures AS f WHERE f.id = j.id)
FROM (
  SELECT w.id, w.queue_id, w.lane_id, w.tenant, w.job, w.arguments, w.key, w.state, w.attempt, w.enqueued_at, false AS unread, 1 AS rank
  FROM headwater.job_waiting AS w WHERE w.id = %(id)s
  UNION ALL
  SELECT d.id, d.queue_id, d.lane_id, d.tenant, d.job, d.arguments, d.key, NULL, d.attempts, d.enqueued_at, false, 2
  FROM headwater.job_dead AS d WHERE d.id = %(id)s
  UNION ALL
  SELECT j.id, j.queue_id, j.lane_id, j.tenant, j.job, j.arguments, j.key, NULL, NULL, j.enqueued_at,
         headwater.is_unread(j.xid, j.id, j.queue_id, j.lane_id, j.constrained), 3
  FROM headwater.jobs AS j WHERE j.id = %(id)s
  ORDER BY rank LIMIT 1) AS j
JOIN headwater.job_queues AS q ON q.queue_id = j.queue_id
JOIN headwater.job_lanes AS l ON l.lane_id = j.lane_id
LEFT JOIN headwater.job_dead AS d ON d.id = j.id
LEFT JOIN headwater.job_progress AS p ON p.id = j.id
LEFT JOIN LATERAL (SELECT o.outcome, o.result FROM headwater.job_outcomes AS o WHERE o.id = j.id ORDER BY o.at DESC LIMIT 1) AS o ON true
LEFT JOIN LATERAL (
  SELECT w.host AS worker FROM headwater.job_workers AS w CROSS JOIN LATERAL headwater.open_jobs(w.worker, j.queue_id) AS n WHERE n = j.id LIMIT 1) AS r ON true

-- name: dead
SELECT d.id, q.queue, d.tenant, d.job, d.attempts, split_part(d.reason, E'\n', 1), d.died_at
FROM headwater.job_dead AS d JOIN headwater.job_queues AS q USING (queue_id)
WHERE d.replayed_as IS NULL AND (%(queue)s::text IS NULL OR q.queue = %(queue)s) AND (%(tenant)s::text IS NULL OR d.tenant = %(tenant)s)
ORDER BY d.died_at DESC, d.id DESC LIMIT %(limit)s

-- name: replay
SELECT headwater.replay_dead(%(ids)s::bigint[], %(queue)s, %(most)s)

-- name: cancel
SELECT headwater.cancel_job(%(id)s)

-- name: pause
SELECT headwater.pause_queue(%(queue)s, %(pause)s)
