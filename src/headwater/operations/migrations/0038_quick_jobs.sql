-- One job without a key or a time takes a short way: its checks are one expression, and one INSERT creates it.
-- Whatever does not fit takes the general way, which says what is wrong.
SET ROLE headwater_owner;

CREATE OR REPLACE FUNCTION headwater.enqueue_many(queue text, items jsonb, tenant text DEFAULT NULL)
RETURNS TABLE (id bigint, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(enqueue_many.tenant);
  of_queue int;
  refusal text;
  one jsonb := CASE WHEN jsonb_array_length(enqueue_many.items) = 1 THEN enqueue_many.items->0 END;
  made bigint;
  at record;
BEGIN
  IF NOT one ?| ARRAY['key', 'unique_key', 'run_at', 'delay_seconds', 'deadline', 'deadline_seconds'] AND pg_column_size(one) <= 65536
      AND one->>'job' ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,199}$' AND jsonb_typeof(coalesce(one->'arguments', '{}')) = 'object'
      AND jsonb_typeof(coalesce(one->'metadata', '{}')) = 'object' AND whose ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$' THEN
    SELECT q.queue_id, l.lane_id, r.current INTO at FROM headwater.job_queues AS q
      JOIN headwater.job_lanes AS l ON l.queue_id = q.queue_id AND l.lane = coalesce(one->>'lane', 'normal')
      CROSS JOIN headwater.job_ring AS r WHERE q.queue = enqueue_many.queue;
    IF FOUND THEN
      made := nextval('headwater.job_seq');
      INSERT INTO headwater.jobs (id, segment, xid, queue_id, lane_id, tenant, job, arguments, metadata, enqueued_at, constrained)
      VALUES (made, at.current, pg_current_xact_id(), at.queue_id, at.lane_id, whose, one->>'job', coalesce(one->'arguments', '{}'),
              coalesce(one->'metadata', '{}'), clock_timestamp(), false);
      RETURN QUERY VALUES (made, false);
      RETURN;
    END IF;
  END IF;
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

-- These look into jobs at each turn. Planned anew each time, as Postgres chose over the partitions, a look took four
-- times as long as it runs; their other settings hold the plans to the indexes.
ALTER FUNCTION headwater.lane_waits(int) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.queue_waits(int) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.take_lane(int, int, bigint) SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION headwater.admit_jobs(int) SET plan_cache_mode = force_generic_plan;

RESET ROLE;
