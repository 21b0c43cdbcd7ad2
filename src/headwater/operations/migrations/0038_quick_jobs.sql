-- One job without a key or a time takes a short way: its checks are one expression, and one INSERT creates it. All else,
-- and what does not fit, goes to enqueue_many, which says what is wrong. Python calls this; it is not public and may change.
SET ROLE headwater_owner;

CREATE FUNCTION headwater.enqueue_jobs(queue text, items jsonb, tenant text DEFAULT NULL)
RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(enqueue_jobs.tenant);
  one jsonb := CASE WHEN jsonb_array_length(enqueue_jobs.items) = 1 THEN enqueue_jobs.items->0 END;
  made bigint;
  at record;
BEGIN
  IF NOT one ?| ARRAY['key', 'unique_key', 'run_at', 'delay_seconds', 'deadline', 'deadline_seconds'] AND pg_column_size(one) <= 65536
      AND one->>'job' ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,199}$' AND jsonb_typeof(coalesce(one->'arguments', '{}')) = 'object'
      AND jsonb_typeof(coalesce(one->'metadata', '{}')) = 'object' AND whose ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' THEN
    SELECT q.queue_id, l.lane_id, r.current INTO at FROM headwater.job_queues AS q
      JOIN headwater.job_lanes AS l ON l.queue_id = q.queue_id AND l.lane = coalesce(one->>'lane', 'normal')
      CROSS JOIN headwater.job_ring AS r WHERE q.queue = enqueue_jobs.queue;
    IF FOUND THEN
      made := nextval('headwater.job_seq');
      INSERT INTO headwater.jobs (id, segment, xid, queue_id, lane_id, tenant, job, arguments, metadata, enqueued_at, constrained)
      VALUES (made, at.current, pg_current_xact_id(), at.queue_id, at.lane_id, whose, one->>'job', coalesce(one->'arguments', '{}'),
              coalesce(one->'metadata', '{}'), clock_timestamp(), false);
      RETURN QUERY VALUES (made, false);
      RETURN;
    END IF;
  END IF;
  RETURN QUERY SELECT e.id, e.duplicate FROM headwater.enqueue_many(enqueue_jobs.queue, enqueue_jobs.items, enqueue_jobs.tenant) AS e;
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.enqueue_jobs FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.enqueue_jobs TO headwater_app, headwater_relay, headwater_operator;

CREATE OR REPLACE FUNCTION headwater.enqueue(
  queue text, job text, arguments jsonb DEFAULT '{}', lane text DEFAULT NULL, key text DEFAULT NULL, unique_key text DEFAULT NULL,
  run_at timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, metadata jsonb DEFAULT '{}', tenant text DEFAULT NULL
) RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.id, e.duplicate FROM headwater.enqueue_jobs(enqueue.queue, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'job', enqueue.job, 'lane', enqueue.lane, 'key', enqueue.key, 'unique_key', enqueue.unique_key, 'run_at', enqueue.run_at,
    'deadline', enqueue.deadline)) || jsonb_build_object('arguments', coalesce(enqueue.arguments, '{}'), 'metadata', coalesce(enqueue.metadata, '{}'))), enqueue.tenant) AS e
$$;

-- These look into jobs at each turn. Planned anew each time, as Postgres chose over the partitions, a look took four
-- times as long as it runs; their other settings hold the plans to the indexes.
ALTER FUNCTION headwater.lane_waits(int) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.queue_waits(int) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.take_lane(int, int, bigint) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.admit_jobs(int) SET plan_cache_mode = force_generic_plan;

RESET ROLE;
