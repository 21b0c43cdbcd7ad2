-- What keeps jobs going: workers' leases, what a lost one had, and tables that stay small.
SET ROLE headwater_owner;

-- Registers a process that runs jobs, and keeps it: false where it has been given up.
CREATE FUNCTION headwater.enter_worker(of_worker text, host text, seconds float8) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM headwater.adopt_jobs();
  INSERT INTO headwater.job_workers (worker, host, expires_at) VALUES (of_worker, host, clock_timestamp() + make_interval(secs => seconds));
END
$$;

-- In a database that was dumped and restored, transaction ids are another server's. What had been read is told
-- by the old ids, which agree with one another; then all are replaced.
CREATE FUNCTION headwater.adopt_jobs() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF (SELECT r.system_identifier FROM headwater.job_ring AS r) = (SELECT s.system_identifier FROM pg_control_system() AS s) THEN
    RETURN;
  END IF;
  PERFORM FROM headwater.job_ring FOR UPDATE;  -- one does it, the others wait
  PERFORM FROM headwater.job_queues AS q ORDER BY q.queue_id FOR NO KEY UPDATE;
  IF (SELECT r.system_identifier FROM headwater.job_ring AS r) = (SELECT s.system_identifier FROM pg_control_system() AS s) THEN
    RETURN;
  END IF;
  UPDATE headwater.jobs AS j SET xid = CASE WHEN headwater.is_unread(j.xid, j.id, j.queue_id, j.lane_id, j.constrained) THEN pg_current_xact_id() ELSE '3' END;
  INSERT INTO headwater.job_cursors (lane_id, before, upto, ready_at, ready_seq)
  SELECT l.lane_id, '4:4:', '4:4:', c.ready_at, c.ready_seq FROM headwater.job_lanes AS l CROSS JOIN LATERAL (
    SELECT * FROM headwater.job_cursors AS c WHERE c.lane_id = l.lane_id ORDER BY c.seq DESC LIMIT 1) AS c;
  INSERT INTO headwater.job_admissions (queue_id, upto) SELECT q.queue_id, '4:4:' FROM headwater.job_queues AS q;
  UPDATE headwater.job_ring SET system_identifier = (SELECT s.system_identifier FROM pg_control_system() AS s);
END
$$;

CREATE FUNCTION headwater.keep_worker(of_worker text, seconds float8) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE headwater.job_workers AS w SET expires_at = clock_timestamp() + make_interval(secs => seconds) WHERE w.worker = of_worker;
  RETURN FOUND;
END
$$;

-- Gives up workers whose lease ran out, or the one named, and lets others begin their jobs again.
CREATE FUNCTION headwater.give_up_workers(named text DEFAULT NULL) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  w record;
  q record;
  attempt_ int;
  o bigint;
  given_up int := 0;
BEGIN
  FOR w IN SELECT l.worker, l.host FROM headwater.job_workers AS l
      WHERE l.expires_at < clock_timestamp() OR l.worker = named FOR UPDATE SKIP LOCKED LOOP
    FOR q IN SELECT n.queue_id FROM headwater.job_queues AS n ORDER BY n.queue_id LOOP
      CONTINUE WHEN NOT EXISTS (SELECT FROM headwater.job_steps AS s WHERE s.queue_id = q.queue_id AND s.worker = w.worker);
      PERFORM FROM headwater.job_queues AS n WHERE n.queue_id = q.queue_id FOR NO KEY UPDATE;
      FOR o IN SELECT headwater.open_jobs(w.worker, q.queue_id) LOOP
        attempt_ := coalesce((SELECT k.attempt FROM headwater.job_waiting AS k WHERE k.id = o), 1);
        PERFORM headwater.end_job(w.worker, q.queue_id, o, 'retry', attempt_, 'The worker on ' || w.host || ' was lost.', 0, NULL);
      END LOOP;
      PERFORM headwater.add_totals(w.worker, q.queue_id, '');
      DELETE FROM headwater.job_steps AS s WHERE s.queue_id = q.queue_id AND s.worker = w.worker;
    END LOOP;
    DELETE FROM headwater.job_workers AS l WHERE l.worker = w.worker;
    given_up := given_up + 1;
  END LOOP;
  RETURN given_up;
END
$$;

-- Adds what a worker's steps since its last base count to the totals under a name.
CREATE FUNCTION headwater.add_totals(of_worker text, of_queue int, under text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.job_totals AS t (queue_id, worker, settled, failed)
  SELECT of_queue, under, coalesce(sum(cardinality(s.settled)), 0), coalesce(sum(s.failed), 0) FROM headwater.job_steps AS s
  WHERE s.queue_id = of_queue AND s.worker = of_worker AND NOT s.base
  ON CONFLICT (queue_id, worker) DO UPDATE SET settled = t.settled + excluded.settled, failed = t.failed + excluded.failed
$$;

-- Sums up a worker's steps in one row and deletes them, with what cursors have passed.
CREATE FUNCTION headwater.tidy_jobs(of_worker text, queue text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_queue int := (SELECT n.queue_id FROM headwater.job_queues AS n WHERE n.queue = tidy_jobs.queue);
  last bigint;
  lane record;
BEGIN
  PERFORM FROM headwater.job_workers AS w WHERE w.worker = of_worker FOR UPDATE;  -- no settling is under way
  IF NOT FOUND THEN
    RETURN;
  END IF;
  INSERT INTO headwater.job_steps (queue_id, worker, taken, base)
  VALUES (of_queue, of_worker, ARRAY(SELECT headwater.open_jobs(of_worker, of_queue)), true) RETURNING seq INTO last;
  PERFORM headwater.add_totals(of_worker, of_queue, '');
  DELETE FROM headwater.job_steps AS s WHERE s.queue_id = of_queue AND s.worker = of_worker AND s.seq < last;
  FOR lane IN SELECT c.* FROM headwater.job_lanes AS l CROSS JOIN LATERAL (
      SELECT * FROM headwater.job_cursors AS c WHERE c.lane_id = l.lane_id ORDER BY c.seq DESC LIMIT 1) AS c WHERE l.queue_id = of_queue LOOP
    DELETE FROM headwater.job_cursors AS c WHERE c.lane_id = lane.lane_id AND c.seq < lane.seq;
    DELETE FROM headwater.job_ready AS y WHERE y.lane_id = lane.lane_id AND (y.due_at, y.seq) <= (lane.ready_at, lane.ready_seq);
  END LOOP;
  DELETE FROM headwater.job_admissions AS a WHERE a.queue_id = of_queue
    AND a.seq < (SELECT n.seq FROM headwater.job_admissions AS n WHERE n.queue_id = of_queue ORDER BY n.seq DESC LIMIT 1);
END
$$;

-- Moves on in the ring of segments, and truncates those of which every job has been taken and settled. What was
-- recorded of finished jobs goes after the same time. Waits for nobody longer than a tenth of a second.
CREATE FUNCTION headwater.rotate_jobs(keep_seconds float8 DEFAULT 86400, segment_jobs bigint DEFAULT 10000000) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
  ring headwater.job_ring;
  drawn bigint := (SELECT s.last_value FROM headwater.job_seq AS s);
  named text;
  emptied int := 0;
  pending boolean;
BEGIN
  SELECT * INTO ring FROM headwater.job_ring FOR NO KEY UPDATE;
  FOR n IN 0..3 LOOP
    CONTINUE WHEN n = ring.current;
    named := 'headwater.jobs_' || n;
    BEGIN
      EXECUTE format('SELECT EXISTS (SELECT FROM %s LIMIT 1)', named) INTO pending;
      CONTINUE WHEN NOT pending;
      EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', named);
      EXECUTE format('SELECT EXISTS (SELECT FROM %s AS j WHERE j.enqueued_at > clock_timestamp() - make_interval(secs => $1)
        OR headwater.is_unread(j.xid, j.id, j.queue_id, j.lane_id, j.constrained) LIMIT 1)
        OR EXISTS (SELECT FROM headwater.job_workers AS w CROSS JOIN headwater.job_queues AS q CROSS JOIN LATERAL headwater.open_jobs(w.worker, q.queue_id) AS o(id)
                   JOIN %s AS j ON j.id = o.id)', named, named) INTO pending USING keep_seconds;
      IF NOT pending THEN
        EXECUTE format('TRUNCATE %s', named);
        emptied := emptied + 1;
      END IF;
    EXCEPTION WHEN lock_not_available THEN
      NULL;
    END;
  END LOOP;
  IF drawn > ring.first_id AND (drawn - ring.first_id > segment_jobs OR ring.entered_at < clock_timestamp() - make_interval(secs => keep_seconds / 4)) THEN
    EXECUTE format('SELECT EXISTS (SELECT FROM headwater.jobs_%s LIMIT 1)', (ring.current + 1) % 4) INTO pending;
    IF NOT pending THEN
      UPDATE headwater.job_ring SET current = (ring.current + 1) % 4, first_id = drawn, entered_at = clock_timestamp();
    END IF;
  END IF;
  DELETE FROM headwater.job_failures AS f WHERE f.at < clock_timestamp() - make_interval(secs => keep_seconds)
    AND NOT EXISTS (SELECT FROM headwater.job_dead AS d WHERE d.id = f.id) AND NOT EXISTS (SELECT FROM headwater.job_waiting AS w WHERE w.id = f.id);
  DELETE FROM headwater.job_outcomes AS o WHERE o.at < clock_timestamp() - make_interval(secs => keep_seconds);
  DELETE FROM headwater.job_cancels AS x WHERE x.at < clock_timestamp() - make_interval(secs => keep_seconds)
    AND NOT EXISTS (SELECT FROM headwater.jobs AS j WHERE j.id = x.id);
  RETURN emptied;
END
$$;

REVOKE EXECUTE ON FUNCTION headwater.adopt_jobs, headwater.enter_worker, headwater.keep_worker, headwater.give_up_workers, headwater.add_totals,
  headwater.tidy_jobs, headwater.rotate_jobs FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.enter_worker, headwater.keep_worker, headwater.give_up_workers, headwater.tidy_jobs, headwater.rotate_jobs TO headwater_relay;
RESET ROLE;
