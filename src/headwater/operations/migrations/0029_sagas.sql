-- Sagas: long-running decisions, each with a stream of its own, saga/NAME/ID, which is the truth.
--
-- The rows here are what lists, workers and the view `sagas` read: which instances there are and who runs them, which
-- events they wait for, and what has come for them. One job at a time runs an instance: its id and fence stand in the
-- row, and every record of a run is checked against them, and against the stream's version.
SET ROLE headwater_owner;

-- What starts a saga: events of these types, after `since`; `field` names the instance, NULL makes each event one.
CREATE TABLE headwater.saga_definitions (
  saga text PRIMARY KEY CHECK (saga ~ '^[a-z][a-z0-9_-]{0,62}$'),
  queue text NOT NULL,
  types text[] NOT NULL,
  field text,
  version int NOT NULL CHECK (version > 0),
  since bigint NOT NULL
);

-- `job` runs the instance, under `fence`; `woken` says that another was to run it meanwhile. `todo` is what a person
-- must do; `due_at` when it goes on by itself, and `timer_at` the last timer that was set.
CREATE TABLE headwater.sagas (
  tenant text NOT NULL,
  saga text NOT NULL,
  id text NOT NULL,
  queue text NOT NULL,
  version int NOT NULL,
  state text NOT NULL CHECK (state IN ('running', 'waiting', 'compensating', 'handed over', 'paused', 'stopped', 'done', 'compensated', 'abandoned')),
  detail text,
  todo text,
  due_at timestamptz,
  timer_at timestamptz,
  job bigint,
  fence bigint NOT NULL DEFAULT 0,
  woken boolean NOT NULL DEFAULT false,
  start_position bigint NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (tenant, saga, id)
) WITH (fillfactor = 60);
CREATE INDEX sagas_unfinished ON headwater.sagas (start_position) WHERE ended_at IS NULL;
CREATE INDEX sagas_ended ON headwater.sagas (ended_at) WHERE ended_at IS NOT NULL;

-- The view `sagas`: what is waited for, by the field of a type that must equal a key, after a position; and the events
-- that may be waited for. It is a fold of the log in order, so no wait races its event.
CREATE TABLE headwater.saga_waits (
  tenant text NOT NULL,
  saga text NOT NULL,
  id text NOT NULL,
  step int NOT NULL,
  type text NOT NULL,
  field text NOT NULL,
  key text NOT NULL,
  after bigint NOT NULL,
  position bigint NOT NULL,
  matched bigint,
  PRIMARY KEY (tenant, saga, id, step)
);
CREATE INDEX saga_waits_open ON headwater.saga_waits (type, field, tenant, key) WHERE matched IS NULL;
CREATE TABLE headwater.saga_wait_types (type text, field text, PRIMARY KEY (type, field));
CREATE TABLE headwater.saga_inbox (
  type text NOT NULL,
  field text NOT NULL,
  tenant text NOT NULL,
  key text NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (type, field, tenant, key, position)
);
CREATE INDEX saga_inbox_position ON headwater.saga_inbox (position);

DO $$
DECLARE
  named text;
BEGIN
  FOREACH named IN ARRAY ARRAY['sagas', 'saga_waits', 'saga_inbox'] LOOP
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
GRANT SELECT ON headwater.saga_definitions, headwater.saga_wait_types TO headwater_app, headwater_relay, headwater_operator;

-- Declares a saga, as an operator. One that is new starts with events after the watermark of now.
CREATE FUNCTION headwater.register_saga(saga text, queue text, types text[], field text, version int) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.saga_definitions AS d (saga, queue, types, field, version, since)
  SELECT register_saga.saga, register_saga.queue, register_saga.types, register_saga.field, register_saga.version, s.last_value - (NOT s.is_called)::int
  FROM headwater.safe AS s
  ON CONFLICT ON CONSTRAINT saga_definitions_pkey DO UPDATE
    SET queue = excluded.queue, types = excluded.types, field = excluded.field, version = excluded.version
$$;

-- Has a saga that no app declares any more start no instances; those that have begun go on. Whether there was one.
CREATE FUNCTION headwater.retire_saga(saga text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM headwater.saga_definitions AS d WHERE d.saga = retire_saga.saga;
  RETURN FOUND;
END
$$;

-- A job that runs an instance, from a time on where one is given.
CREATE FUNCTION headwater.enqueue_saga(s headwater.sagas, due timestamptz DEFAULT NULL, metadata jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT e.id FROM headwater.enqueue_many(s.queue, jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'job', 'headwater.saga', 'run_at', due)) || jsonb_build_object('arguments', jsonb_build_object('saga', s.saga, 'instance', s.id, 'timer', due IS NOT NULL),
    'metadata', metadata)), s.tenant) AS e
$$;

-- Starts an instance from a command, in the caller's transaction; nothing where there is one of this name.
CREATE FUNCTION headwater.start_saga(of_saga text, instance text, command jsonb, metadata jsonb DEFAULT '{}')
RETURNS TABLE ("position" bigint, token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(NULL);
  d headwater.saga_definitions;
  s headwater.sagas;
BEGIN
  SELECT * INTO d FROM headwater.saga_definitions AS n WHERE n.saga = of_saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'There is no saga %.', quote_literal(of_saga) USING ERRCODE = 'HW050', HINT = 'Deploy the app that declares it.';
  END IF;
  SELECT a.position, a.token INTO position, token FROM headwater.append('saga/' || of_saga || '/' || instance, 'saga.started',
    jsonb_build_object('saga', of_saga, 'instance', instance, 'version', d.version, 'position', NULL, 'command', start_saga.command),
    0, start_saga.metadata) AS a;
  INSERT INTO headwater.sagas (tenant, saga, id, queue, version, state, start_position)
  VALUES (whose, of_saga, instance, d.queue, d.version, 'running', start_saga.position) RETURNING * INTO s;
  PERFORM headwater.enqueue_saga(s, NULL, start_saga.metadata);
  RETURN NEXT;
END
$$;

-- Takes an instance for a job: its standing, the moment, and what its stream holds after a version. Yours: the job
-- may run it. Busy: another does, and will look again. A timer that is not due, or of what has gone on, finds nothing.
CREATE FUNCTION headwater.begin_saga(of_tenant text, of_saga text, instance text, of_job bigint, of_fence bigint, timer boolean, after_version int)
RETURNS TABLE (standing text, moment timestamptz, version int, type text, data text, metadata text, recorded_at timestamptz, "position" bigint,
               other_type text, other_version int, other_data text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  s headwater.sagas;
BEGIN
  -- If a crash of the server loses who runs it, the job is begun again.
  PERFORM set_config('synchronous_commit', 'off', true);
  SELECT * INTO s FROM headwater.sagas AS n WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance) FOR UPDATE;
  standing := CASE
    WHEN NOT FOUND THEN 'unknown'
    WHEN s.ended_at IS NOT NULL THEN s.state
    WHEN s.job = of_job AND s.fence > of_fence THEN 'lost'
    WHEN s.job IS NOT NULL AND s.job <> of_job AND headwater.is_unfinished(s.job) THEN 'busy'
    WHEN s.state IN ('paused', 'stopped', 'handed over') THEN s.state
    WHEN timer AND s.job IS NULL AND NOT s.woken AND (s.due_at IS NULL OR s.due_at > clock_timestamp()) THEN 'nothing'
    ELSE 'yours' END;
  moment := clock_timestamp();
  IF standing = 'busy' AND NOT s.woken THEN
    UPDATE headwater.sagas AS n SET woken = true WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance);
  ELSIF standing = 'yours' AND (s.job, s.fence, s.woken) IS DISTINCT FROM (of_job, of_fence, false) THEN
    UPDATE headwater.sagas AS n SET job = of_job, fence = of_fence, woken = false,
      state = CASE WHEN n.state = 'waiting' THEN 'running' ELSE n.state END
    WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance);
  END IF;
  IF standing IN ('unknown', 'lost', 'busy', 'nothing') THEN
    RETURN NEXT;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT begin_saga.standing, begin_saga.moment, e.version, e.type, e.data::text, e.metadata::text, e.recorded_at, e.position, o.type, o.schema_version, o.data::text
  FROM (SELECT 1) AS one LEFT JOIN headwater.events AS e ON e.tenant = of_tenant AND e.stream = 'saga/' || of_saga || '/' || instance
    AND e.version > after_version AND e.position >= s.start_position
  LEFT JOIN headwater.events AS o ON o.position = (e.data->>'position')::bigint
  ORDER BY e.version;
END
$$;

-- Appends what a run of an instance has to record, and says how it stands, in one statement: no lock of it waits for
-- a client. Raises where the job does not run it any more, and where the stream is not at the version.
CREATE FUNCTION headwater.record_saga(
  of_tenant text, of_saga text, instance text, of_job bigint, of_fence bigint, expected int, events jsonb,
  to_state text, why text, what text, due timestamptz, release boolean
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s headwater.sagas;
  stays boolean;
BEGIN
  PERFORM set_config('headwater.tenant', of_tenant, true);
  SELECT * INTO s FROM headwater.sagas AS n WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance) FOR UPDATE;
  IF s.job IS DISTINCT FROM of_job OR s.fence <> of_fence THEN
    RAISE EXCEPTION 'The saga % is not run by this job any more.', quote_literal(of_saga || '/' || instance) USING ERRCODE = 'HW020';
  END IF;
  PERFORM headwater.append_saga(s, record_saga.events, expected);
  stays := s.woken AND to_state = 'waiting';
  UPDATE headwater.sagas AS n SET state = coalesce(to_state, n.state), detail = why, todo = what, due_at = due,
    timer_at = CASE WHEN release THEN coalesce(due, n.timer_at) ELSE n.timer_at END,
    job = CASE WHEN release AND NOT stays THEN NULL ELSE n.job END, woken = n.woken AND NOT release, changed_at = clock_timestamp(),
    ended_at = CASE WHEN to_state IN ('done', 'compensated', 'abandoned') THEN clock_timestamp() END
  WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance);
  IF release AND due IS NOT NULL AND due IS DISTINCT FROM s.timer_at THEN
    PERFORM headwater.enqueue_saga(s, due, coalesce(record_saga.events->0->'metadata', '{}'));
  END IF;
  RETURN release AND NOT stays;
END
$$;

-- Appends to an instance's stream: an array of objects with type, data and metadata.
CREATE FUNCTION headwater.append_saga(s headwater.sagas, events jsonb, expected int) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  named text := 'saga/' || s.saga || '/' || s.id;
  only_one jsonb := events->0;
BEGIN
  IF jsonb_array_length(events) = 1 THEN
    PERFORM headwater.append(named, only_one->>'type', only_one->'data', expected, coalesce(only_one->'metadata', '{}'));
  ELSIF events <> '[]' THEN
    PERFORM headwater.append_many((
      SELECT jsonb_agg(e.value || jsonb_build_object('stream', named) || CASE WHEN e.ord = 1 THEN jsonb_build_object('expected_version', expected) ELSE '{}' END ORDER BY e.ord)
      FROM jsonb_array_elements(events) WITH ORDINALITY AS e(value, ord)));
  END IF;
END
$$;

-- What has come for an instance that waits: of each step the event that matched, or, where its time is over, the first
-- that is in the log and the view has not come to. `late` says that the view has read the wait, so none came in time.
CREATE FUNCTION headwater.answers_to_saga(of_tenant text, of_saga text, instance text, steps int[], overdue int[])
RETURNS TABLE (step int, late boolean, "position" bigint, type text, schema_version int, data text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  reached bigint := (SELECT c.position FROM headwater.checkpoints AS c WHERE c.view = 'sagas');
  w headwater.saga_waits;
BEGIN
  FOR w IN SELECT * FROM headwater.saga_waits AS n WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance) AND n.step = ANY (steps) ORDER BY n.step LOOP
    step := w.step;
    late := w.step = ANY (overdue);
    position := w.matched;
    IF position IS NULL AND late THEN
      position := (SELECT min(e.position) FROM headwater.events AS e
                   WHERE e.position > greatest(reached, w.after) AND e.tenant = of_tenant AND e.type = w.type AND e.data->>w.field = w.key);
    END IF;
    CONTINUE WHEN position IS NULL AND NOT late;
    SELECT e.type, e.schema_version, e.data::text INTO type, schema_version, data FROM headwater.events AS e WHERE e.position = answers_to_saga.position;
    RETURN NEXT;
  END LOOP;
END
$$;

-- An operator's word to an instance: paused, resumed, retried, resolved, abandoned. The state it has then; NULL where
-- there is none of this name, and 'refused: ...' where it is not such that this can be done.
CREATE FUNCTION headwater.steer_saga(of_tenant text, of_saga text, instance text, verb text, note text, undo boolean DEFAULT false) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  s headwater.sagas;
  runs boolean;
  next_state text;
BEGIN
  SELECT * INTO s FROM headwater.sagas AS n WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance) FOR UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  runs := CASE verb
    WHEN 'paused' THEN s.state IN ('running', 'waiting', 'compensating')
    WHEN 'resumed' THEN s.state = 'paused'
    WHEN 'retried' THEN s.state IN ('stopped', 'handed over') OR (s.ended_at IS NULL AND s.state <> 'paused' AND s.job IS NOT NULL AND NOT headwater.is_unfinished(s.job))
    WHEN 'resolved' THEN s.state = 'handed over'
    WHEN 'abandoned' THEN s.ended_at IS NULL END;
  IF runs IS DISTINCT FROM true THEN
    RETURN 'refused: it is ' || s.state;
  END IF;
  next_state := CASE WHEN verb = 'paused' THEN 'paused' WHEN verb = 'abandoned' AND NOT undo THEN 'abandoned'
    WHEN verb IN ('resolved', 'abandoned') OR s.state = 'handed over' THEN 'compensating' ELSE 'running' END;
  PERFORM set_config('headwater.tenant', of_tenant, true);
  PERFORM headwater.append_saga(s, jsonb_build_array(jsonb_build_object('type', 'saga.' || verb, 'data',
    jsonb_build_object('saga', of_saga, 'instance', instance, 'note', steer_saga.note)
      || CASE WHEN verb = 'abandoned' THEN jsonb_build_object('undo', undo) ELSE '{}' END)), NULL);
  -- Who runs it now meets the event as its stream has moved on; a run that pauses records what is under way first.
  UPDATE headwater.sagas AS n SET state = next_state, changed_at = clock_timestamp(),
    detail = CASE WHEN verb IN ('paused', 'abandoned') THEN steer_saga.note END,
    todo = CASE WHEN verb IN ('paused') THEN n.todo END,
    ended_at = CASE WHEN next_state = 'abandoned' THEN clock_timestamp() END, due_at = NULL, timer_at = NULL
  WHERE (n.tenant, n.saga, n.id) = (of_tenant, of_saga, instance);
  IF next_state IN ('running', 'compensating') THEN
    PERFORM headwater.enqueue_saga(s);
  END IF;
  RETURN next_state;
END
$$;

REVOKE EXECUTE ON FUNCTION headwater.register_saga, headwater.retire_saga, headwater.enqueue_saga, headwater.start_saga, headwater.begin_saga, headwater.record_saga,
  headwater.append_saga, headwater.answers_to_saga, headwater.steer_saga FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.register_saga, headwater.retire_saga, headwater.steer_saga TO headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.start_saga TO headwater_app;
GRANT EXECUTE ON FUNCTION headwater.begin_saga, headwater.record_saga, headwater.answers_to_saga TO headwater_relay;
RESET ROLE;
