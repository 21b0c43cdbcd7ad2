-- Jobs: units of work in queues, created in the transaction of the facts that cause them.
--
-- A job without a key and a delay is a row that is inserted once and never changed. It is found as what one
-- snapshot sees and an earlier one did not, so nobody waits for a long transaction and nobody misses one that
-- commits late; and no read passes over rows that are dead. Finished segments are truncated. Only jobs with a
-- key, a delay or a second attempt have a row in job_waiting that changes.
SET ROLE headwater_owner;

CREATE SEQUENCE headwater.job_seq AS bigint CACHE 1;
CREATE SEQUENCE headwater.job_step_seq AS bigint CACHE 1;

CREATE TABLE headwater.job_queues (
  queue_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue text NOT NULL UNIQUE CHECK (queue ~ '^[a-z][a-z0-9_-]{0,62}$'),
  cap int CHECK (cap > 0),
  every double precision CHECK (every > 0),
  burst int CHECK (burst > 0),
  key_limit int NOT NULL DEFAULT 1 CHECK (key_limit > 0),
  key_every double precision CHECK (key_every > 0),
  key_burst int CHECK (key_burst > 0),
  paused boolean NOT NULL DEFAULT false
);

CREATE TABLE headwater.job_lanes (
  lane_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  queue_id int NOT NULL REFERENCES headwater.job_queues,
  lane text NOT NULL CHECK (lane ~ '^[a-z][a-z0-9_-]{0,62}$'),
  UNIQUE (queue_id, lane)
);

CREATE TABLE headwater.jobs (
  id bigint NOT NULL,
  segment smallint NOT NULL,
  xid xid8 NOT NULL,
  queue_id int NOT NULL,
  lane_id int NOT NULL,
  tenant text NOT NULL,
  job text NOT NULL,
  arguments jsonb NOT NULL,
  key text,
  unique_key text,
  run_at timestamptz,
  deadline timestamptz,
  metadata jsonb NOT NULL,
  enqueued_at timestamptz NOT NULL,
  constrained boolean NOT NULL
) PARTITION BY LIST (segment);
CREATE INDEX jobs_id ON headwater.jobs (id);
CREATE INDEX jobs_plain ON headwater.jobs (lane_id, xid, id) WHERE NOT constrained;
CREATE INDEX jobs_constrained ON headwater.jobs (queue_id, xid, id) WHERE constrained;

-- The ring of segments. Jobs go into the current one; the one after it is empty before it becomes current.
CREATE TABLE headwater.job_ring (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  current smallint NOT NULL DEFAULT 0,
  first_id bigint NOT NULL DEFAULT 0,
  entered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  system_identifier bigint NOT NULL
);
INSERT INTO headwater.job_ring (system_identifier) SELECT s.system_identifier FROM pg_control_system() AS s;
DO $$
BEGIN
  FOR n IN 0..3 LOOP
    EXECUTE format('CREATE TABLE headwater.jobs_%s PARTITION OF headwater.jobs FOR VALUES IN (%s)', n, n);
    EXECUTE format('ALTER TABLE headwater.jobs_%s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', n);
    EXECUTE format('CREATE POLICY owner_all ON headwater.jobs_%s TO headwater_owner USING (true) WITH CHECK (true)', n);
  END LOOP;
END
$$;

-- Jobs with a key, a delay or a second attempt, until they are finished. `arrival` orders those of one key.
CREATE TABLE headwater.job_waiting (
  id bigint PRIMARY KEY,
  queue_id int NOT NULL,
  lane_id int NOT NULL,
  tenant text NOT NULL,
  job text NOT NULL,
  arguments jsonb NOT NULL,
  key text,
  unique_key text,
  run_at timestamptz,
  deadline timestamptz,
  metadata jsonb NOT NULL,
  enqueued_at timestamptz NOT NULL,
  arrival bigint NOT NULL,
  attempt int NOT NULL DEFAULT 1,
  state text NOT NULL CHECK (state IN ('blocked', 'ready', 'running'))
) WITH (fillfactor = 80);
CREATE INDEX job_waiting_blocked ON headwater.job_waiting (queue_id, tenant, key, arrival) WHERE state = 'blocked';
CREATE INDEX job_waiting_active ON headwater.job_waiting (queue_id, tenant, key) WHERE state <> 'blocked';

-- What may start, and from when. Read from the lane's cursor on, so no dead row is passed over.
CREATE TABLE headwater.job_ready (
  lane_id int NOT NULL,
  due_at timestamptz NOT NULL,
  seq bigint NOT NULL DEFAULT nextval('headwater.job_step_seq'),
  id bigint NOT NULL,
  attempt int NOT NULL,
  PRIMARY KEY (lane_id, due_at, seq)
);

-- How far a lane has been read. The newest row counts: each claim adds one, and the old are deleted at the
-- other end. `before` and `upto` are the snapshots between which is being read, (xid, id) is how far.
CREATE TABLE headwater.job_cursors (
  lane_id int NOT NULL,
  seq bigint NOT NULL DEFAULT nextval('headwater.job_step_seq'),
  before pg_snapshot NOT NULL,
  upto pg_snapshot NOT NULL,
  xid xid8 NOT NULL DEFAULT '0',
  id bigint NOT NULL DEFAULT 0,
  ready_at timestamptz NOT NULL DEFAULT '-infinity',
  ready_seq bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (lane_id, seq)
);

-- The snapshot up to which a queue's jobs with keys and delays were taken into job_waiting.
CREATE TABLE headwater.job_admissions (
  queue_id int NOT NULL,
  seq bigint NOT NULL DEFAULT nextval('headwater.job_step_seq'),
  upto pg_snapshot NOT NULL,
  PRIMARY KEY (queue_id, seq)
);

-- Processes that run jobs. A worker's name is its fencing token: it is used once, and once its row is gone
-- nothing is settled under it.
CREATE TABLE headwater.job_workers (
  worker text PRIMARY KEY,
  host text NOT NULL,
  expires_at timestamptz NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);

-- What workers took and settled, a row for each batch. A `base` row holds all that was open when it was
-- written; those before it are deleted.
CREATE TABLE headwater.job_steps (
  queue_id int NOT NULL,
  worker text NOT NULL,
  seq bigint NOT NULL DEFAULT nextval('headwater.job_step_seq'),
  taken bigint[] NOT NULL DEFAULT '{}',
  settled bigint[] NOT NULL DEFAULT '{}',
  failed int NOT NULL DEFAULT 0,
  base boolean NOT NULL DEFAULT false,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (queue_id, worker, seq)
);

CREATE TABLE headwater.job_totals (
  queue_id int NOT NULL,
  worker text NOT NULL,
  settled bigint NOT NULL,
  failed bigint NOT NULL,
  PRIMARY KEY (queue_id, worker)
) WITH (fillfactor = 10);

CREATE TABLE headwater.job_unique (
  queue_id int NOT NULL,
  tenant text NOT NULL,
  unique_key text NOT NULL,
  id bigint NOT NULL,
  PRIMARY KEY (queue_id, tenant, unique_key)
);

-- Jobs that are to end: those not begun never start, those under way are told.
CREATE TABLE headwater.job_cancels (
  id bigint PRIMARY KEY,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE headwater.job_failures (
  tenant text NOT NULL,
  id bigint NOT NULL,
  attempt int NOT NULL,
  reason text NOT NULL,
  worker text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_failures_id ON headwater.job_failures (id);
CREATE INDEX job_failures_at ON headwater.job_failures (at);

CREATE TABLE headwater.job_outcomes (
  tenant text NOT NULL,
  id bigint NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('done', 'dead', 'cancelled')),
  result jsonb,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX job_outcomes_id ON headwater.job_outcomes (id);
CREATE INDEX job_outcomes_at ON headwater.job_outcomes (at);

CREATE TABLE headwater.job_progress (
  tenant text NOT NULL,
  id bigint PRIMARY KEY,
  done double precision NOT NULL,
  note text,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Dead letters, whole: they outlive the segment that the job was in.
CREATE TABLE headwater.job_dead (
  id bigint PRIMARY KEY,
  queue_id int NOT NULL,
  lane_id int NOT NULL,
  tenant text NOT NULL,
  job text NOT NULL,
  arguments jsonb NOT NULL,
  key text,
  unique_key text,
  metadata jsonb NOT NULL,
  enqueued_at timestamptz NOT NULL,
  attempts int NOT NULL,
  reason text NOT NULL,
  died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  replayed_as bigint
);
CREATE INDEX job_dead_died ON headwater.job_dead (queue_id, died_at);

-- `planned_at` is the next run that was not begun, `due_at` the same with its jitter; `active_id` the job of the
-- run under way.
CREATE TABLE headwater.job_schedules (
  schedule text PRIMARY KEY,
  definition jsonb NOT NULL,
  tenant text NOT NULL,
  planned_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  paused boolean NOT NULL DEFAULT false,
  active_id bigint,
  active_planned timestamptz,
  last_planned timestamptz,
  last_outcome text
);

DO $$
DECLARE
  named text;
BEGIN
  FOREACH named IN ARRAY ARRAY['jobs', 'job_waiting', 'job_unique', 'job_failures', 'job_outcomes', 'job_progress', 'job_dead', 'job_schedules'] LOOP
    EXECUTE format('ALTER TABLE headwater.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', named);
    EXECUTE format('CREATE POLICY owner_all ON headwater.%I TO headwater_owner USING (true) WITH CHECK (true)', named);
    EXECUTE format('CREATE POLICY tenant_reads ON headwater.%I FOR SELECT TO headwater_app
                    USING (tenant = (SELECT current_setting(''headwater.tenant'', true)))', named);
    EXECUTE format('CREATE POLICY relay_reads ON headwater.%I FOR SELECT TO headwater_relay USING (true)', named);
    EXECUTE format('CREATE POLICY operator_reads ON headwater.%I FOR SELECT TO headwater_operator USING (true)', named);
    EXECUTE format('GRANT SELECT ON headwater.%I TO headwater_app, headwater_relay, headwater_operator', named);
  END LOOP;
END
$$;
CREATE POLICY relay_all ON headwater.job_schedules TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_all ON headwater.job_schedules TO headwater_operator USING (true) WITH CHECK (true);
GRANT INSERT, UPDATE, DELETE ON headwater.job_schedules TO headwater_relay, headwater_operator;
GRANT SELECT ON headwater.job_queues, headwater.job_lanes TO headwater_app, headwater_relay, headwater_operator;
GRANT SELECT ON headwater.job_ring, headwater.job_ready, headwater.job_cursors, headwater.job_admissions, headwater.job_workers,
  headwater.job_steps, headwater.job_totals, headwater.job_cancels TO headwater_relay, headwater_operator;

-- Declares a queue and its lanes, or changes its limits. Lanes that are no longer named keep their jobs.
CREATE FUNCTION headwater.register_queue(
  queue text, lanes text[], cap int DEFAULT NULL, every double precision DEFAULT NULL, burst int DEFAULT NULL,
  key_limit int DEFAULT 1, key_every double precision DEFAULT NULL, key_burst int DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  known int;
BEGIN
  INSERT INTO headwater.job_queues AS q (queue, cap, every, burst, key_limit, key_every, key_burst)
  VALUES (register_queue.queue, register_queue.cap, register_queue.every, register_queue.burst, register_queue.key_limit,
          register_queue.key_every, register_queue.key_burst)
  ON CONFLICT ON CONSTRAINT job_queues_queue_key DO UPDATE SET cap = excluded.cap, every = excluded.every, burst = excluded.burst,
    key_limit = excluded.key_limit, key_every = excluded.key_every, key_burst = excluded.key_burst
  RETURNING q.queue_id INTO known;
  IF NOT EXISTS (SELECT FROM headwater.job_admissions AS a WHERE a.queue_id = known) THEN
    INSERT INTO headwater.job_admissions (queue_id, upto) VALUES (known, '1:1:');
  END IF;
  WITH made AS (
    INSERT INTO headwater.job_lanes (queue_id, lane) SELECT known, unnest(register_queue.lanes)
    ON CONFLICT DO NOTHING RETURNING lane_id
  ) INSERT INTO headwater.job_cursors (lane_id, before, upto) SELECT m.lane_id, '1:1:', '1:1:' FROM made AS m;
END
$$;

-- Creates jobs in the caller's transaction: public API. `items` is an array of objects with job and
-- arguments, and perhaps lane, key, unique_key, run_at or delay_seconds, deadline or deadline_seconds,
-- metadata. Answers one row for each, in order; `duplicate` where an unfinished job has the unique key.
CREATE FUNCTION headwater.enqueue_many(queue text, items jsonb, tenant text DEFAULT NULL)
RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(enqueue_many.tenant);
  of_queue int;
  refusal text;
BEGIN
  SELECT q.queue_id INTO of_queue FROM headwater.job_queues AS q WHERE q.queue = enqueue_many.queue;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'There is no queue %.', quote_literal(enqueue_many.queue)
      USING ERRCODE = 'HW040', HINT = 'Declare it in the app and run headwater init, or call headwater.register_queue.';
  END IF;
  PERFORM headwater.check_tenant(whose);
  SELECT r.refusal INTO refusal FROM jsonb_to_recordset(enqueue_many.items)
    AS i(job text, arguments jsonb, lane text, key text, unique_key text, metadata jsonb, run_at timestamptz, deadline timestamptz)
  CROSS JOIN LATERAL (SELECT CASE
    WHEN i.job IS NULL OR i.job !~ '^[A-Za-z_][A-Za-z0-9_.-]{0,199}$' THEN 'A job''s name is missing or malformed.'
    WHEN i.arguments IS NOT NULL AND jsonb_typeof(i.arguments) <> 'object' THEN 'The arguments are not an object.'
    WHEN pg_column_size(i.arguments) > 1048576 THEN 'The arguments are larger than 1 MiB.'
    WHEN pg_column_size(i.metadata) > 65536 OR jsonb_typeof(coalesce(i.metadata, '{}')) <> 'object' THEN 'The metadata is larger than 64 KiB, or no object.'
    WHEN i.run_at NOT BETWEEN '2000-01-01' AND '9000-01-01' OR i.deadline NOT BETWEEN '2000-01-01' AND '9000-01-01' THEN 'A time is not between the years 2000 and 9000.'
    WHEN length(i.key) > 255 OR length(i.unique_key) > 255 THEN 'A key is longer than 255 characters.'
    WHEN NOT EXISTS (SELECT FROM headwater.job_lanes AS l WHERE l.queue_id = of_queue AND l.lane = coalesce(i.lane, 'normal'))
      THEN 'The queue has no lane ' || quote_literal(coalesce(i.lane, 'normal')) || '.'
  END AS refusal) AS r WHERE r.refusal IS NOT NULL LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '%', refusal USING ERRCODE = 'HW041', HINT = 'Mend the job; nothing was enqueued.';
  END IF;
  RETURN QUERY
  WITH item AS MATERIALIZED (
    SELECT nextval('headwater.job_seq') AS id, x.* FROM (
      SELECT i.ord, l.lane_id, i.value->>'job' AS job, coalesce(i.value->'arguments', '{}') AS arguments, i.value->>'key' AS key,
             i.value->>'unique_key' AS unique_key, coalesce(i.value->'metadata', '{}') AS metadata,
             coalesce((i.value->>'run_at')::timestamptz, clock_timestamp() + make_interval(secs => (i.value->>'delay_seconds')::float8)) AS run_at,
             coalesce((i.value->>'deadline')::timestamptz, clock_timestamp() + make_interval(secs => (i.value->>'deadline_seconds')::float8)) AS deadline
      FROM jsonb_array_elements(enqueue_many.items) WITH ORDINALITY AS i(value, ord)
      JOIN headwater.job_lanes AS l ON l.queue_id = of_queue AND l.lane = coalesce(i.value->>'lane', 'normal')
      ORDER BY i.ord) AS x
  ), claimed AS (
    -- In sorted order, so that two callers never wait for each other; whoever comes second waits here.
    INSERT INTO headwater.job_unique AS u (queue_id, tenant, unique_key, id)
    SELECT DISTINCT ON (i.unique_key) of_queue, whose, i.unique_key, i.id FROM item AS i
    WHERE i.unique_key IS NOT NULL ORDER BY i.unique_key, i.ord
    ON CONFLICT (queue_id, tenant, unique_key) DO UPDATE SET id = u.id
    RETURNING u.unique_key, u.id
  ), settled AS MATERIALIZED (
    SELECT i.*, c.id AS holder FROM item AS i LEFT JOIN claimed AS c ON c.unique_key = i.unique_key
  ), made AS (
    INSERT INTO headwater.jobs (id, segment, xid, queue_id, lane_id, tenant, job, arguments, key, unique_key, run_at, deadline, metadata, enqueued_at, constrained)
    SELECT s.id, r.current, pg_current_xact_id(), of_queue, s.lane_id, whose, s.job, s.arguments, s.key, s.unique_key, s.run_at, s.deadline,
           s.metadata, clock_timestamp(), s.key IS NOT NULL OR s.run_at IS NOT NULL
    FROM settled AS s CROSS JOIN headwater.job_ring AS r
    WHERE s.holder IS NULL OR s.holder = s.id
  ) SELECT coalesce(s.holder, s.id), coalesce(s.holder <> s.id, false) FROM settled AS s ORDER BY s.ord;
END
$$;

-- One job: SELECT id FROM headwater.enqueue('mail', 'send', '{"order": "7"}').
CREATE FUNCTION headwater.enqueue(
  queue text, job text, arguments jsonb DEFAULT '{}', lane text DEFAULT NULL, key text DEFAULT NULL, unique_key text DEFAULT NULL,
  run_at timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant text DEFAULT NULL
) RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.id, e.duplicate FROM headwater.enqueue_many(enqueue.queue, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'job', enqueue.job, 'lane', enqueue.lane, 'key', enqueue.key, 'unique_key', enqueue.unique_key, 'run_at', enqueue.run_at,
    'deadline', enqueue.deadline)) || jsonb_build_object('arguments', coalesce(enqueue.arguments, '{}'), 'metadata', coalesce(enqueue.metadata, '{}'))), enqueue.tenant) AS e
$$;

-- Ends a job: 'cancelled' where it had not begun, 'asked' where it is under way and is told, NULL where it is
-- finished or unknown. Applications end their tenant's, operators anybody's.
CREATE FUNCTION headwater.cancel_job(of_job bigint, reason text DEFAULT 'cancelled') RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  j record;
  of_queue int;
  state_ text;
BEGIN
  SELECT r.queue_id, r.tenant INTO j FROM (SELECT w.queue_id, w.tenant FROM headwater.job_waiting AS w WHERE w.id = of_job
    UNION ALL SELECT r.queue_id, r.tenant FROM headwater.jobs AS r WHERE r.id = of_job LIMIT 1) AS r;
  IF NOT FOUND OR (j.tenant IS DISTINCT FROM current_setting('headwater.tenant', true)
      AND NOT pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user), 'headwater_operator', 'MEMBER')) THEN
    RETURN NULL;
  END IF;
  of_queue := j.queue_id;
  PERFORM FROM headwater.job_queues AS n WHERE n.queue_id = of_queue FOR NO KEY UPDATE;  -- nobody takes it meanwhile
  SELECT w.state INTO state_ FROM headwater.job_waiting AS w WHERE w.id = of_job;
  IF state_ IN ('blocked', 'ready') THEN
    SELECT e.* INTO j FROM headwater.end_job('', of_queue, of_job, 'cancelled', 1, NULL, NULL, NULL) AS e;
    IF j.key IS NOT NULL THEN
      PERFORM headwater.promote_keys(of_queue, ARRAY[j.tenant], ARRAY[j.key]);
    END IF;
    RETURN 'cancelled';
  END IF;
  SELECT headwater.is_unread(r.xid, r.id, r.queue_id, r.lane_id, r.constrained) AS unread, r.* INTO j FROM headwater.jobs AS r WHERE r.id = of_job;
  IF j.unread THEN
    INSERT INTO headwater.job_cancels (id, reason) VALUES (of_job, cancel_job.reason) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN NULL;  -- it was cancelled before
    END IF;
    PERFORM headwater.end_job('', of_queue, of_job, 'cancelled', 1, NULL, NULL, NULL);
    RETURN 'cancelled';
  END IF;
  IF EXISTS (SELECT FROM headwater.job_workers AS w CROSS JOIN LATERAL headwater.open_jobs(w.worker, of_queue) AS o WHERE o = of_job) THEN
    INSERT INTO headwater.job_cancels (id, reason) VALUES (of_job, cancel_job.reason) ON CONFLICT DO NOTHING;
    RETURN 'asked';
  END IF;
  RETURN NULL;
END
$$;

-- Enqueues dead letters again, at most `most`: those named, or those of a queue; how many were. Each once.
CREATE FUNCTION headwater.replay_dead(ids bigint[] DEFAULT NULL, of_queue text DEFAULT NULL, most int DEFAULT 1000) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  d record;
  replayed int := 0;
BEGIN
  FOR d IN SELECT x.*, q.queue, l.lane FROM headwater.job_dead AS x JOIN headwater.job_queues AS q USING (queue_id) JOIN headwater.job_lanes AS l ON l.lane_id = x.lane_id
      WHERE x.replayed_as IS NULL AND (replay_dead.ids IS NULL OR x.id = ANY (replay_dead.ids)) AND (replay_dead.of_queue IS NULL OR q.queue = replay_dead.of_queue)
      ORDER BY x.id LIMIT most FOR UPDATE OF x SKIP LOCKED LOOP
    UPDATE headwater.job_dead AS x SET replayed_as = (
      SELECT e.id FROM headwater.enqueue(d.queue, d.job, d.arguments, d.lane, d.key, d.unique_key, NULL, NULL, d.metadata, d.tenant) AS e)
    WHERE x.id = d.id;
    replayed := replayed + 1;
  END LOOP;
  RETURN replayed;
END
$$;

CREATE FUNCTION headwater.pause_queue(of_queue text, pause boolean) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE headwater.job_queues AS q SET paused = pause WHERE q.queue = of_queue;
  RETURN FOUND;
END
$$;

-- What a job says of itself while it runs.
CREATE FUNCTION headwater.report_progress(of_tenant text, of_job bigint, done float8, note text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.job_progress AS p (tenant, id, done, note) VALUES (of_tenant, of_job, done, left(note, 1000))
  ON CONFLICT (id) DO UPDATE SET done = excluded.done, note = excluded.note, at = clock_timestamp()
$$;

REVOKE EXECUTE ON FUNCTION headwater.register_queue, headwater.enqueue_many, headwater.enqueue, headwater.cancel_job, headwater.replay_dead,
  headwater.pause_queue, headwater.report_progress FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.register_queue, headwater.replay_dead, headwater.pause_queue TO headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.report_progress TO headwater_relay;
GRANT EXECUTE ON FUNCTION headwater.cancel_job TO headwater_app, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.enqueue_many, headwater.enqueue TO headwater_app, headwater_relay, headwater_operator;
RESET ROLE;
