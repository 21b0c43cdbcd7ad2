-- What workers do with jobs: take them and settle them.
--
-- Whoever takes jobs, or makes any ready, holds the queue's row: so a lane's cursor moves in order and nothing
-- becomes ready behind it. Settling plain jobs takes no such lock. A worker's row is locked before a queue's.
SET ROLE headwater_owner;

CREATE TYPE headwater.taken_job AS (
  id bigint, lane text, tenant text, job text, arguments text, key text, unique_key text, deadline timestamptz,
  metadata text, enqueued_at timestamptz, attempt int, kept boolean, fence bigint
);

-- Whether a lane has something that may start now, as far as a glance tells: no lock is taken. The settings
-- hold the plans to the indexes, whatever the statistics of a table that has just been filled.
CREATE FUNCTION headwater.lane_waits(of_lane int) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
  c headwater.job_cursors;
  late xid8[];
BEGIN
  SELECT * INTO c FROM headwater.job_cursors AS k WHERE k.lane_id = of_lane ORDER BY k.seq DESC LIMIT 1;
  IF EXISTS (SELECT FROM headwater.job_ready AS y WHERE y.lane_id = of_lane AND (y.due_at, y.seq) > (c.ready_at, c.ready_seq) AND y.due_at <= clock_timestamp()) THEN
    RETURN true;
  END IF;
  -- Those under way at the later snapshot, and of those at the earlier the ones that are not read yet.
  late := ARRAY(SELECT pg_snapshot_xip(c.upto) UNION SELECT x FROM pg_snapshot_xip(c.before) AS x WHERE x >= c.xid AND pg_visible_in_snapshot(x, c.upto));
  IF late <> '{}' AND EXISTS (SELECT FROM headwater.jobs AS j WHERE j.lane_id = of_lane AND NOT j.constrained AND j.xid = ANY (late)
      AND (j.xid > c.xid OR NOT pg_visible_in_snapshot(j.xid, c.upto) OR j.id > c.id)) THEN
    RETURN true;
  END IF;
  IF c.xid < pg_snapshot_xmax(c.before) THEN
    c.xid := pg_snapshot_xmax(c.before);
    c.id := 0;
  END IF;
  RETURN EXISTS (SELECT FROM headwater.jobs AS j WHERE j.lane_id = of_lane AND NOT j.constrained AND (j.xid, j.id) > (c.xid, c.id));
END
$$;

CREATE FUNCTION headwater.queue_waits(of_queue int) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
  admitted pg_snapshot;
  late xid8[];
BEGIN
  SELECT a.upto INTO admitted FROM headwater.job_admissions AS a WHERE a.queue_id = of_queue ORDER BY a.seq DESC LIMIT 1;
  IF EXISTS (SELECT FROM headwater.jobs AS j WHERE j.queue_id = of_queue AND j.constrained AND j.xid >= pg_snapshot_xmax(admitted)) THEN
    RETURN true;
  END IF;
  late := ARRAY(SELECT pg_snapshot_xip(admitted));
  RETURN late <> '{}' AND EXISTS (SELECT FROM headwater.jobs AS j WHERE j.queue_id = of_queue AND j.constrained AND j.xid = ANY (late));
END
$$;

-- When a key may start next under a rate: the generic cell rate algorithm, as in take_rates, but reserving.
CREATE FUNCTION headwater.reserve_rate(name text, every_ double precision, burst_ int) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.rates AS r (key, due, granted, every, burst, wanted)
  VALUES (name, extract(epoch FROM clock_timestamp()) + every_, 1, every_, burst_, 1)
  ON CONFLICT (key) DO UPDATE SET due = greatest(r.due, extract(epoch FROM clock_timestamp())) + every_, every = every_, burst = burst_
  RETURNING to_timestamp(greatest(r.due - r.every * r.burst, extract(epoch FROM clock_timestamp())))
$$;

-- Lets a job start from a time on, but never behind the lane's cursor, whatever the clock does.
CREATE FUNCTION headwater.make_ready(of_lane int, of_job bigint, of_attempt int, due timestamptz) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.job_ready (lane_id, due_at, id, attempt)
  SELECT of_lane, greatest(due, clock_timestamp(), (SELECT c.ready_at FROM headwater.job_cursors AS c WHERE c.lane_id = of_lane ORDER BY c.seq DESC LIMIT 1)),
         of_job, of_attempt
$$;

-- The next jobs of some keys become ready, as many as each may have under way, in order of arrival.
CREATE FUNCTION headwater.promote_keys(of_queue int, tenants text[], keys text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  q headwater.job_queues;
BEGIN
  SELECT * INTO q FROM headwater.job_queues AS n WHERE n.queue_id = of_queue;
  WITH head AS MATERIALIZED (
    SELECT w.* FROM (SELECT DISTINCT u.tenant, u.key FROM unnest(tenants, keys) AS u(tenant, key)) AS k
    CROSS JOIN LATERAL (SELECT count(*) AS active FROM headwater.job_waiting AS w
      WHERE w.queue_id = of_queue AND w.tenant = k.tenant AND w.key = k.key AND w.state <> 'blocked') AS a
    CROSS JOIN LATERAL (SELECT w.* FROM headwater.job_waiting AS w
      WHERE w.queue_id = of_queue AND w.tenant = k.tenant AND w.key = k.key AND w.state = 'blocked'
      ORDER BY w.arrival LIMIT greatest(q.key_limit - a.active, 0)) AS w
  ), moved AS (
    UPDATE headwater.job_waiting AS w SET state = 'ready' FROM head AS h WHERE w.id = h.id
  ) INSERT INTO headwater.job_ready (lane_id, due_at, id, attempt)
  SELECT h.lane_id, greatest(h.run_at, clock_timestamp(), (SELECT c.ready_at FROM headwater.job_cursors AS c WHERE c.lane_id = h.lane_id ORDER BY c.seq DESC LIMIT 1),
           CASE WHEN q.key_every IS NOT NULL
                THEN headwater.reserve_rate('job ' || q.queue || ' ' || md5(h.tenant || ' ' || h.key), q.key_every, coalesce(q.key_burst, 1)) END),
         h.id, h.attempt
  FROM head AS h;
END
$$;

-- Takes jobs with keys and delays that were committed since into job_waiting. In order of ids: two that waited
-- for each other, as two appends to one stream do, are admitted in the order in which they went on.
CREATE FUNCTION headwater.admit_jobs(of_queue int) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
  before_ pg_snapshot;
  upto_ pg_snapshot := pg_current_snapshot();
  tenants text[];
  keys text[];
BEGIN
  SELECT a.upto INTO before_ FROM headwater.job_admissions AS a WHERE a.queue_id = of_queue ORDER BY a.seq DESC LIMIT 1;
  WITH found AS MATERIALIZED (
    SELECT j.* FROM headwater.jobs AS j WHERE j.queue_id = of_queue AND j.constrained
      AND j.xid >= pg_snapshot_xmax(before_) AND pg_visible_in_snapshot(j.xid, upto_)
    UNION ALL
    SELECT j.* FROM headwater.jobs AS j WHERE j.queue_id = of_queue AND j.constrained
      AND j.xid = ANY (ARRAY(SELECT x FROM pg_snapshot_xip(before_) AS x WHERE pg_visible_in_snapshot(x, upto_)))
  ), admitted AS (
    INSERT INTO headwater.job_waiting (id, queue_id, lane_id, tenant, job, arguments, key, unique_key, run_at, deadline, metadata, enqueued_at, arrival, state)
    SELECT f.id, of_queue, f.lane_id, f.tenant, f.job, f.arguments, f.key, f.unique_key, f.run_at, f.deadline, f.metadata, f.enqueued_at,
           nextval('headwater.job_step_seq'), CASE WHEN f.key IS NULL THEN 'ready' ELSE 'blocked' END
    FROM (SELECT * FROM found AS f WHERE NOT EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = f.id) ORDER BY f.id) AS f
    RETURNING id, lane_id, tenant, key, run_at
  ), let AS (
    INSERT INTO headwater.job_ready (lane_id, due_at, id, attempt)
    SELECT a.lane_id, greatest(a.run_at, clock_timestamp(), (SELECT c.ready_at FROM headwater.job_cursors AS c WHERE c.lane_id = a.lane_id ORDER BY c.seq DESC LIMIT 1)),
           a.id, 1
    FROM admitted AS a WHERE a.key IS NULL
  ) SELECT array_agg(a.tenant), array_agg(a.key) INTO tenants, keys FROM admitted AS a WHERE a.key IS NOT NULL;
  INSERT INTO headwater.job_admissions (queue_id, upto) VALUES (of_queue, upto_);
  IF keys IS NOT NULL THEN
    PERFORM headwater.promote_keys(of_queue, tenants, keys);
  END IF;
END
$$;

-- The next jobs of a lane, at most so many, and its cursor past them. What was made ready comes first. The
-- caller holds the queue, and has created no job in this transaction.
CREATE FUNCTION headwater.take_lane(of_lane int, most int, fence bigint) RETURNS SETOF headwater.taken_job
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
  c headwater.job_cursors;
  r record;
  called text;
  remain int := most;
  late xid8[];
  seen boolean := false;
  running bigint[] := '{}';
BEGIN
  SELECT l.lane INTO called FROM headwater.job_lanes AS l WHERE l.lane_id = of_lane;
  SELECT * INTO c FROM headwater.job_cursors AS k WHERE k.lane_id = of_lane ORDER BY k.seq DESC LIMIT 1;
  FOR r IN
    SELECT y.due_at, y.seq, w.* FROM headwater.job_ready AS y
    LEFT JOIN headwater.job_waiting AS w ON w.id = y.id AND w.attempt = y.attempt AND w.state = 'ready'
    WHERE y.lane_id = of_lane AND (y.due_at, y.seq) > (c.ready_at, c.ready_seq) AND y.due_at <= clock_timestamp()
    ORDER BY y.due_at, y.seq LIMIT most
  LOOP
    seen := true;
    c.ready_at := r.due_at;
    c.ready_seq := r.seq;
    CONTINUE WHEN r.id IS NULL;
    remain := remain - 1;
    running := running || r.id;
    RETURN NEXT ROW(r.id, called, r.tenant, r.job, r.arguments::text, r.key, r.unique_key, r.deadline, r.metadata::text, r.enqueued_at, r.attempt, true, fence)::headwater.taken_job;
  END LOOP;
  IF running <> '{}' THEN
    UPDATE headwater.job_waiting AS w SET state = 'running' WHERE w.id = ANY (running);
  END IF;
  FOR turn IN 1..2 LOOP
    EXIT WHEN remain = 0;
    -- Those that were under way at the first snapshot and had ended at the second.
    late := ARRAY(SELECT x FROM pg_snapshot_xip(c.before) AS x WHERE x >= c.xid AND pg_visible_in_snapshot(x, c.upto));
    IF late <> '{}' THEN
      FOR r IN SELECT j.* FROM headwater.jobs AS j WHERE j.lane_id = of_lane AND NOT j.constrained
          AND j.xid = ANY (late) AND (j.xid, j.id) > (c.xid, c.id)
          ORDER BY j.xid, j.id LIMIT remain LOOP
        seen := true;
        c.xid := r.xid;
        c.id := r.id;
        CONTINUE WHEN EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = r.id);
        remain := remain - 1;
        RETURN NEXT ROW(r.id, called, r.tenant, r.job, r.arguments::text, r.key, r.unique_key, r.deadline, r.metadata::text, r.enqueued_at, 1, false, fence)::headwater.taken_job;
      END LOOP;
    END IF;
    EXIT WHEN remain = 0;
    IF c.xid < pg_snapshot_xmax(c.before) THEN
      c.xid := pg_snapshot_xmax(c.before);
      c.id := 0;
    END IF;
    FOR r IN SELECT j.* FROM headwater.jobs AS j WHERE j.lane_id = of_lane AND NOT j.constrained
        AND (j.xid, j.id) > (c.xid, c.id) AND j.xid < pg_snapshot_xmax(c.upto) AND pg_visible_in_snapshot(j.xid, c.upto)
        ORDER BY j.xid, j.id LIMIT remain LOOP
      seen := true;
      c.xid := r.xid;
      c.id := r.id;
      CONTINUE WHEN EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = r.id);
      remain := remain - 1;
      RETURN NEXT ROW(r.id, called, r.tenant, r.job, r.arguments::text, r.key, r.unique_key, r.deadline, r.metadata::text, r.enqueued_at, 1, false, fence)::headwater.taken_job;
    END LOOP;
    IF remain > 0 AND turn = 1 THEN
      c.before := c.upto;
      c.upto := pg_current_snapshot();
      c.xid := '0';
      c.id := 0;
    END IF;
  END LOOP;
  IF NOT seen THEN
    RETURN;
  END IF;
  INSERT INTO headwater.job_cursors (lane_id, before, upto, xid, id, ready_at, ready_seq)
  VALUES (of_lane, c.before, c.upto, c.xid, c.id, c.ready_at, c.ready_seq);
END
$$;

-- What a worker has taken and not settled; one that is retried is taken again.
CREATE FUNCTION headwater.open_jobs(of_worker text, of_queue int) RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH step AS MATERIALIZED (
    SELECT s.taken, s.settled FROM headwater.job_steps AS s
    WHERE s.queue_id = of_queue AND s.worker = of_worker AND s.seq >= coalesce((
      SELECT b.seq FROM headwater.job_steps AS b WHERE b.queue_id = of_queue AND b.worker = of_worker AND b.base ORDER BY b.seq DESC LIMIT 1), 0)
  ) SELECT unnest(s.taken) FROM step AS s EXCEPT ALL SELECT unnest(s.settled) FROM step AS s
$$;

CREATE FUNCTION headwater.jobs_under_way(of_queue int) RETURNS int
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*)::int FROM headwater.job_workers AS w CROSS JOIN LATERAL headwater.open_jobs(w.worker, of_queue) AS o
$$;

-- Raises unless the worker holds its lease, and keeps it from being given up until this transaction ends.
CREATE FUNCTION headwater.hold_worker(of_worker text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM headwater.job_workers AS w WHERE w.worker = of_worker FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'The worker % has lost its lease.', quote_literal(of_worker)
      USING ERRCODE = 'HW020', HINT = 'Its jobs were given to others; nothing of it was settled.';
  END IF;
END
$$;

-- Jobs for a worker: from the lanes in the order given, `wanted` of each at first, then whatever is there, at
-- most `most` together and what the queue's cap and rate leave. Where there is nothing it looks again each half
-- millisecond for `patience` seconds: each look has its own snapshot, and costs no round trip.
CREATE FUNCTION headwater.take_jobs(of_worker text, queue text, lanes text[], wanted int[], most int, patience float8 DEFAULT 0) RETURNS SETOF headwater.taken_job
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  q headwater.job_queues;
  ids int[];
  room int := most;
  share int;
  given int;
  constrained boolean;
  got headwater.taken_job;
  taken bigint[] := '{}';
  fence bigint;
  until_ timestamptz := clock_timestamp() + make_interval(secs => patience);
BEGIN
  SELECT * INTO q FROM headwater.job_queues AS n WHERE n.queue = take_jobs.queue;
  IF NOT FOUND OR q.paused OR most <= 0 THEN
    RETURN;
  END IF;
  LOOP
    constrained := headwater.queue_waits(q.queue_id);
    -- The lanes in their order, NULL for those that have nothing: what has been admitted may be in any.
    ids := ARRAY(SELECT CASE WHEN l.lane_id IS NOT NULL AND (constrained OR headwater.lane_waits(l.lane_id)) THEN l.lane_id END
                 FROM unnest(lanes) WITH ORDINALITY AS u(lane, ord) LEFT JOIN headwater.job_lanes AS l ON l.queue_id = q.queue_id AND l.lane = u.lane ORDER BY u.ord);
    EXIT WHEN constrained OR array_remove(ids, NULL) <> '{}';
    IF clock_timestamp() >= until_ THEN
      RETURN;
    END IF;
    PERFORM pg_sleep(0.0005);
  END LOOP;
  -- If a crash of the server loses what was taken, nobody took it: whoever settles asks what is open. So its
  -- commit need not wait for the disk.
  PERFORM set_config('synchronous_commit', 'off', true);
  PERFORM headwater.hold_worker(of_worker);
  SELECT * INTO q FROM headwater.job_queues AS n WHERE n.queue_id = q.queue_id FOR NO KEY UPDATE;
  IF q.paused THEN
    RETURN;
  END IF;
  -- Drawn under the queue's lock: whoever takes a job later has a higher one, also of the same attempt.
  fence := nextval('headwater.job_step_seq');
  IF constrained THEN
    PERFORM headwater.admit_jobs(q.queue_id);
  END IF;
  IF q.cap IS NOT NULL THEN
    room := least(room, q.cap - headwater.jobs_under_way(q.queue_id));
  END IF;
  IF q.every IS NOT NULL THEN
    room := least(room, coalesce((SELECT floor(coalesce(q.burst, 1) - greatest(r.due - extract(epoch FROM clock_timestamp()), 0) / q.every + 1e-6)::int
                                  FROM headwater.rates AS r WHERE r.key = 'job ' || q.queue), coalesce(q.burst, 1)));
  END IF;
  FOR pass IN 1..2 LOOP
    FOR n IN 1..cardinality(ids) LOOP
      share := CASE WHEN pass = 1 THEN least(wanted[n], room) ELSE room END;
      CONTINUE WHEN share <= 0 OR ids[n] IS NULL;
      given := 0;
      FOR got IN SELECT * FROM headwater.take_lane(ids[n], share, fence) LOOP
        given := given + 1;
        taken := taken || got.id;
        RETURN NEXT got;
      END LOOP;
      room := room - given;
      IF given < share THEN
        ids[n] := NULL;  -- it has no more
      END IF;
    END LOOP;
  END LOOP;
  IF taken <> '{}' THEN
    INSERT INTO headwater.job_steps (queue_id, worker, seq, taken) VALUES (q.queue_id, of_worker, fence, taken);
    IF q.every IS NOT NULL THEN
      PERFORM headwater.take_rates(ARRAY['job ' || q.queue], ARRAY[q.every], ARRAY[coalesce(q.burst, 1)], ARRAY[cardinality(taken)]);
    END IF;
  END IF;
END
$$;


-- Ends jobs, or has them begun again. `finished` are plain ones that are done; `kept` those with a row in
-- job_waiting that are done; `special` is an array of objects for the rest: id, tenant, outcome (done, retry,
-- release, dead, cancelled), attempt, reason, delay_seconds, result. A job that is not open is left alone.
CREATE FUNCTION headwater.settle_jobs(of_worker text, queue text, finished bigint[], kept bigint[] DEFAULT '{}', special jsonb DEFAULT '[]') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_queue int := (SELECT n.queue_id FROM headwater.job_queues AS n WHERE n.queue = settle_jobs.queue);
  ended bigint[];
  failures int := 0;
  tenants text[] := '{}';
  keys text[] := '{}';
  s record;
  done_ record;
BEGIN
  PERFORM headwater.hold_worker(of_worker);
  IF kept <> '{}' OR special <> '[]' THEN
    PERFORM FROM headwater.job_queues AS n WHERE n.queue_id = of_queue FOR NO KEY UPDATE;
    WITH gone AS (
      DELETE FROM headwater.job_waiting AS w WHERE w.id = ANY (kept) RETURNING w.tenant, w.key, w.unique_key, w.id
    ), freed AS (
      DELETE FROM headwater.job_unique AS u USING gone AS g
      WHERE u.queue_id = of_queue AND u.tenant = g.tenant AND u.unique_key = g.unique_key AND u.id = g.id
    ) SELECT coalesce(array_agg(g.tenant), '{}'), coalesce(array_agg(g.key), '{}') INTO tenants, keys FROM gone AS g WHERE g.key IS NOT NULL;
  END IF;
  ended := finished || kept;
  FOR s IN
    SELECT x.* FROM jsonb_to_recordset(special) AS x(id bigint, outcome text, attempt int, reason text, delay_seconds float8, result jsonb)
    WHERE x.id IN (SELECT headwater.open_jobs(of_worker, of_queue))
  LOOP
    done_ := headwater.end_job(of_worker, of_queue, s.id, s.outcome, s.attempt, s.reason, s.delay_seconds, s.result);
    ended := ended || s.id;
    failures := failures + (s.outcome IN ('retry', 'dead'))::int;
    IF done_.key IS NOT NULL THEN
      tenants := tenants || done_.tenant;
      keys := keys || done_.key;
    END IF;
  END LOOP;
  IF keys <> '{}' THEN
    PERFORM headwater.promote_keys(of_queue, tenants, keys);
  END IF;
  INSERT INTO headwater.job_steps (queue_id, worker, settled, failed) VALUES (of_queue, of_worker, ended, failures);
END
$$;

-- Ends one job or makes it ready again; its tenant and key where the key's next may go on.
CREATE FUNCTION headwater.end_job(
  of_worker text, of_queue int, of_job bigint, outcome text, attempt int, reason text, delay_seconds float8, result jsonb,
  OUT tenant text, OUT key text
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  j headwater.job_waiting;
  is_kept boolean;
  how text := outcome;
BEGIN
  SELECT * INTO j FROM headwater.job_waiting AS w WHERE w.id = of_job;
  is_kept := FOUND;
  IF NOT is_kept THEN
    SELECT r.id, r.queue_id, r.lane_id, r.tenant, r.job, r.arguments, r.key, r.unique_key, r.run_at, r.deadline, r.metadata, r.enqueued_at,
           nextval('headwater.job_step_seq'), end_job.attempt, 'ready'
      INTO j FROM headwater.jobs AS r WHERE r.id = of_job;
  END IF;
  IF how IN ('retry', 'dead') THEN
    INSERT INTO headwater.job_failures (tenant, id, attempt, reason, worker)
    VALUES (j.tenant, of_job, end_job.attempt, left(end_job.reason, 8000), of_worker);
  END IF;
  IF how IN ('retry', 'release') AND EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = of_job) THEN
    how := 'cancelled';
  END IF;
  IF how IN ('retry', 'release') THEN
    j.attempt := end_job.attempt + (how = 'retry')::int;
    IF is_kept THEN
      UPDATE headwater.job_waiting AS w SET attempt = j.attempt, state = 'ready' WHERE w.id = of_job;
    ELSE
      INSERT INTO headwater.job_waiting SELECT j.*;
    END IF;
    PERFORM headwater.make_ready(j.lane_id, of_job, j.attempt, clock_timestamp() + make_interval(secs => coalesce(end_job.delay_seconds, 0)));
    RETURN;
  END IF;
  IF how = 'dead' THEN
    INSERT INTO headwater.job_dead (id, queue_id, lane_id, tenant, job, arguments, key, unique_key, metadata, enqueued_at, attempts, reason)
    VALUES (of_job, of_queue, j.lane_id, j.tenant, j.job, j.arguments, j.key, j.unique_key, j.metadata, j.enqueued_at, end_job.attempt, left(end_job.reason, 8000))
    ON CONFLICT DO NOTHING;
  END IF;
  INSERT INTO headwater.job_outcomes (tenant, id, outcome, result) VALUES (j.tenant, of_job, how, end_job.result);
  IF is_kept THEN
    DELETE FROM headwater.job_waiting AS w WHERE w.id = of_job;
  END IF;
  IF j.unique_key IS NOT NULL THEN
    DELETE FROM headwater.job_unique AS u WHERE u.queue_id = of_queue AND u.tenant = j.tenant AND u.unique_key = j.unique_key AND u.id = of_job;
  END IF;
  DELETE FROM headwater.job_progress AS p WHERE p.id = of_job;
  IF is_kept THEN
    tenant := j.tenant;
    key := j.key;
  END IF;
END
$$;

-- What a worker holds, for one that lost its connection and does not know whether its last call came through.
CREATE FUNCTION headwater.resume_jobs(of_worker text, queue text) RETURNS SETOF headwater.taken_job
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_queue int := (SELECT n.queue_id FROM headwater.job_queues AS n WHERE n.queue = resume_jobs.queue);
BEGIN
  PERFORM headwater.hold_worker(of_worker);
  RETURN QUERY
  SELECT o.id, l.lane, x.tenant, x.job, x.arguments, x.key, x.unique_key, x.deadline, x.metadata, x.enqueued_at, x.attempt, x.kept,
         (SELECT max(s.seq) FROM headwater.job_steps AS s WHERE s.queue_id = of_queue AND s.worker = of_worker AND o.id = ANY (s.taken))
  FROM headwater.open_jobs(of_worker, of_queue) AS o(id)
  CROSS JOIN LATERAL (
    SELECT w.lane_id, w.tenant, w.job, w.arguments::text, w.key, w.unique_key, w.deadline, w.metadata::text, w.enqueued_at, w.attempt, true AS kept
    FROM headwater.job_waiting AS w WHERE w.id = o.id
    UNION ALL
    SELECT j.lane_id, j.tenant, j.job, j.arguments::text, j.key, j.unique_key, j.deadline, j.metadata::text, j.enqueued_at, 1, false
    FROM headwater.jobs AS j WHERE j.id = o.id AND NOT EXISTS (SELECT FROM headwater.job_waiting AS w WHERE w.id = o.id)) AS x
  JOIN headwater.job_lanes AS l ON l.lane_id = x.lane_id;
END
$$;

-- Whether a job has not been taken from its lane, or admitted, yet.
CREATE FUNCTION headwater.is_unread(of_xid xid8, of_job bigint, of_queue int, of_lane int, is_constrained boolean) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN is_constrained THEN NOT pg_visible_in_snapshot(of_xid, (SELECT a.upto FROM headwater.job_admissions AS a WHERE a.queue_id = of_queue ORDER BY a.seq DESC LIMIT 1))
    ELSE (SELECT NOT pg_visible_in_snapshot(of_xid, c.before) AND (NOT pg_visible_in_snapshot(of_xid, c.upto) OR (of_xid, of_job) > (c.xid, c.id))
          FROM headwater.job_cursors AS c WHERE c.lane_id = of_lane ORDER BY c.seq DESC LIMIT 1) END
$$;

-- Settles a job with its effects, in the transaction of both. Raises where it is another's by now.
CREATE FUNCTION headwater.finish_job(of_worker text, queue text, of_job bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM headwater.hold_worker(of_worker);
  IF of_job NOT IN (SELECT headwater.open_jobs(of_worker, (SELECT n.queue_id FROM headwater.job_queues AS n WHERE n.queue = finish_job.queue))) THEN
    RAISE EXCEPTION 'The job % is not this worker''s.', of_job USING ERRCODE = 'HW020', HINT = 'It was settled before, or given to another.';
  END IF;
  PERFORM headwater.settle_jobs(of_worker, finish_job.queue, '{}', '{}', jsonb_build_array(jsonb_build_object('id', of_job, 'outcome', 'done', 'attempt', 1)));
END
$$;

-- Whether a job is still to be done or under way.
CREATE FUNCTION headwater.is_unfinished(of_job bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM headwater.job_waiting AS w WHERE w.id = of_job)
      OR EXISTS (SELECT FROM headwater.jobs AS r WHERE r.id = of_job AND NOT EXISTS (SELECT FROM headwater.job_cancels AS x WHERE x.id = of_job)
                 AND headwater.is_unread(r.xid, r.id, r.queue_id, r.lane_id, r.constrained))
      OR EXISTS (SELECT FROM headwater.job_workers AS w CROSS JOIN headwater.job_queues AS q
                 CROSS JOIN LATERAL headwater.open_jobs(w.worker, q.queue_id) AS o WHERE o = of_job)
$$;

REVOKE EXECUTE ON FUNCTION headwater.lane_waits, headwater.queue_waits, headwater.reserve_rate, headwater.make_ready, headwater.promote_keys,
  headwater.admit_jobs, headwater.take_lane, headwater.open_jobs, headwater.jobs_under_way, headwater.hold_worker, headwater.take_jobs,
  headwater.settle_jobs, headwater.end_job, headwater.resume_jobs, headwater.is_unread, headwater.finish_job, headwater.is_unfinished FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.is_unfinished TO headwater_relay, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.take_jobs, headwater.settle_jobs, headwater.resume_jobs TO headwater_relay;
GRANT EXECUTE ON FUNCTION headwater.finish_job TO headwater_app, headwater_relay;
GRANT EXECUTE ON FUNCTION headwater.is_unread, headwater.open_jobs, headwater.lane_waits, headwater.queue_waits TO headwater_operator;
RESET ROLE;
