-- A job that runs twice in one worker is done once in effect.
SET ROLE headwater_owner;

-- A crash of the server may lose that a job was taken, while its function runs on: taken again by the same worker,
-- it runs twice under one name. Both would find it open until one has committed, so the second waits for the first.
CREATE OR REPLACE FUNCTION headwater.finish_job(of_worker text, queue text, of_job bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM headwater.hold_worker(of_worker);
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.job ' || of_job, 0));
  IF of_job NOT IN (SELECT headwater.open_jobs(of_worker, (SELECT n.queue_id FROM headwater.job_queues AS n WHERE n.queue = finish_job.queue))) THEN
    RAISE EXCEPTION 'The job % is not this worker''s.', of_job USING ERRCODE = 'HW020', HINT = 'It was settled before, or given to another.';
  END IF;
  PERFORM headwater.settle_jobs(of_worker, finish_job.queue, '{}', '{}', jsonb_build_array(jsonb_build_object('id', of_job, 'outcome', 'done', 'attempt', 1)));
END
$$;
RESET ROLE;
