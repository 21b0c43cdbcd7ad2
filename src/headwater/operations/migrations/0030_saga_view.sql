-- The view `sagas`: starts instances, and finds what they wait for. It reads definitions and waits from tables, so
-- every relay drives it alike, whichever app it runs.
SET ROLE headwater_owner;

-- Applies a batch: the positions after `after` up to `upto`, but those aside. Nothing starts, or is woken, of positions
-- up to `done_upto`, which an earlier generation has applied. The caller has moved the checkpoint in this transaction.
CREATE FUNCTION headwater.apply_sagas(after bigint, upto bigint, done_upto bigint, aside bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Which types are in the batch, so that a batch of others costs one look.
  found_types text[] := ARRAY(SELECT DISTINCT e.type FROM headwater.events AS e WHERE e.position > apply_sagas.after AND e.position <= upto AND e.position <> ALL (aside));
BEGIN
  PERFORM headwater.start_sagas_of(greatest(apply_sagas.after, done_upto), upto, aside, found_types);
  IF 'saga.waiting' = ANY (found_types) THEN
    PERFORM headwater.take_waits_in(apply_sagas.after, upto, aside);
  END IF;
  IF found_types && ARRAY['saga.step_done', 'saga.finished', 'saga.abandoned'] THEN
    DELETE FROM headwater.saga_waits AS w USING headwater.events AS e
    WHERE e.position > apply_sagas.after AND e.position <= upto AND e.type IN ('saga.step_done', 'saga.finished', 'saga.abandoned')
      AND w.tenant = e.tenant AND w.saga = e.data->>'saga' AND w.id = e.data->>'instance'
      AND CASE e.type WHEN 'saga.step_done' THEN w.step = (e.data->>'step')::int WHEN 'saga.abandoned' THEN e.data->'undo' <> 'true' ELSE true END;
  END IF;
  IF EXISTS (SELECT FROM headwater.saga_wait_types AS t WHERE t.type = ANY (found_types)) THEN
    INSERT INTO headwater.saga_inbox (type, field, tenant, key, position)
    SELECT t.type, t.field, e.tenant, e.data->>t.field, e.position
    FROM headwater.events AS e JOIN headwater.saga_wait_types AS t ON t.type = e.type
    WHERE e.position > apply_sagas.after AND e.position <= upto AND e.position <> ALL (aside) AND length(e.data->>t.field) <= 255
    ON CONFLICT DO NOTHING;
  ELSIF NOT 'saga.waiting' = ANY (found_types) THEN
    RETURN;
  END IF;
  PERFORM headwater.match_waits_in(apply_sagas.after, upto, done_upto);
END
$$;

-- Starts an instance for each event that a definition names, unless there is one of its name.
CREATE FUNCTION headwater.start_sagas_of(after bigint, upto bigint, aside bigint[], found_types text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  o record;
  g record;
  refused int[];
  s headwater.sagas;
BEGIN
  IF NOT EXISTS (SELECT FROM headwater.saga_definitions AS d WHERE d.types && found_types) THEN
    RETURN;
  END IF;
  FOR o IN
    SELECT n.tenant, array_agg(n.saga ORDER BY n.position, n.saga) AS sagas, array_agg(n.id ORDER BY n.position, n.saga) AS ids,
           array_agg(n.queue ORDER BY n.position, n.saga) AS queues, array_agg(n.version ORDER BY n.position, n.saga) AS versions,
           array_agg(n.position ORDER BY n.position, n.saga) AS positions, array_agg(n.metadata ORDER BY n.position, n.saga) AS metadata
    FROM (SELECT e.tenant, d.saga, d.queue, d.version, e.position, CASE WHEN d.field IS NULL THEN e.position::text ELSE e.data->>d.field END AS id,
                 jsonb_strip_nulls(jsonb_build_object('correlation', coalesce(e.metadata->'correlation', to_jsonb(e.id)), 'trace', e.metadata->'trace')) AS metadata
          FROM headwater.events AS e JOIN headwater.saga_definitions AS d ON e.type = ANY (d.types) AND e.position > d.since
          WHERE e.position > start_sagas_of.after AND e.position <= upto AND e.position <> ALL (aside)) AS n
    WHERE n.id IS NOT NULL GROUP BY n.tenant ORDER BY n.tenant
  LOOP
    PERFORM set_config('headwater.tenant', o.tenant, true);
    SELECT ARRAY(SELECT (x->>'g')::int FROM jsonb_array_elements(a.outcomes) AS x) AS refused,
           (SELECT x->>'refusal' FROM jsonb_array_elements(a.outcomes) AS x WHERE x->>'refusal' NOT LIKE 'HW001%' LIMIT 1) AS why INTO g
    FROM headwater.append_groups(
      ARRAY(SELECT 'saga/' || u.saga || '/' || u.id FROM unnest(o.sagas, o.ids) WITH ORDINALITY AS u(saga, id, n) ORDER BY u.n),
      array_fill('saga.started'::text, ARRAY[cardinality(o.ids)]),
      ARRAY(SELECT jsonb_build_object('saga', u.saga, 'instance', u.id, 'version', u.version, 'position', u.position, 'command', NULL)
            FROM unnest(o.sagas, o.ids, o.versions, o.positions) WITH ORDINALITY AS u(saga, id, version, position, n) ORDER BY u.n),
      ARRAY(SELECT n - 1 FROM generate_series(1, cardinality(o.ids)) AS n), array_fill(0, ARRAY[cardinality(o.ids)]),
      ARRAY(SELECT u.m || jsonb_build_object('cause', jsonb_build_object('position', u.position)) FROM unnest(o.metadata, o.positions) WITH ORDINALITY AS u(m, position, n) ORDER BY u.n)
    ) AS a;
    IF g.why IS NOT NULL THEN
      RAISE EXCEPTION 'A saga cannot be started: %', substr(g.why, 6);
    END IF;
    refused := g.refused;
    INSERT INTO headwater.sagas (tenant, saga, id, queue, version, state, start_position)
    SELECT o.tenant, u.saga, u.id, u.queue, u.version, 'running', u.position
    FROM unnest(o.sagas, o.ids, o.queues, o.versions, o.positions) WITH ORDINALITY AS u(saga, id, queue, version, position, n)
    WHERE (u.n - 1)::int <> ALL (refused);
    PERFORM headwater.enqueue_many(j.queue, j.items, o.tenant) FROM (
      SELECT u.queue, jsonb_agg(jsonb_build_object('job', 'headwater.saga', 'metadata', u.m, 'arguments',
               jsonb_build_object('saga', u.saga, 'instance', u.id, 'timer', false)) ORDER BY u.n) AS items
      FROM unnest(o.queues, o.sagas, o.ids, o.metadata) WITH ORDINALITY AS u(queue, saga, id, m, n)
      WHERE (u.n - 1)::int <> ALL (refused) GROUP BY u.queue) AS j;
  END LOOP;
END
$$;

-- Takes what is waited for. Of a type that was never waited for by this field, the events since the oldest instance
-- that has not ended are looked up once; from here on each batch adds its own.
CREATE FUNCTION headwater.take_waits_in(after bigint, upto bigint, aside bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  WITH waited AS MATERIALIZED (
    SELECT e.tenant, e.position, e.data FROM headwater.events AS e
    WHERE e.position > take_waits_in.after AND e.position <= upto AND e.position <> ALL (aside) AND e.type = 'saga.waiting' AND e.data->>'type' IS NOT NULL
  ), taken AS (
    INSERT INTO headwater.saga_waits (tenant, saga, id, step, type, field, key, after, position)
    SELECT w.tenant, w.data->>'saga', w.data->>'instance', (w.data->>'step')::int, w.data->>'type', w.data->>'field', w.data->>'key', (w.data->>'after')::bigint, w.position
    FROM waited AS w ON CONFLICT DO NOTHING
  ), learned AS (
    INSERT INTO headwater.saga_wait_types (type, field) SELECT DISTINCT w.data->>'type', w.data->>'field' FROM waited AS w
    ON CONFLICT DO NOTHING RETURNING type, field
  ) INSERT INTO headwater.saga_inbox (type, field, tenant, key, position)
  SELECT l.type, l.field, e.tenant, e.data->>l.field, e.position
  FROM learned AS l JOIN headwater.events AS e ON e.type = l.type
  WHERE e.position > (SELECT least((SELECT min(s.start_position) FROM headwater.sagas AS s WHERE s.ended_at IS NULL), (SELECT min((w.data->>'after')::bigint) FROM waited AS w)))
    AND e.position <= take_waits_in.after AND length(e.data->>l.field) <= 255
  ON CONFLICT DO NOTHING;
END
$$;

-- Brings waits and events together, the first of each key after where the wait begins, and wakes those that waited.
CREATE FUNCTION headwater.match_waits_in(after bigint, upto bigint, done_upto bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  o record;
BEGIN
  FOR o IN
    WITH touched AS (
      SELECT w.tenant, w.saga, w.id, w.step FROM headwater.saga_waits AS w
      JOIN headwater.events AS e ON e.position = w.position
      WHERE w.matched IS NULL AND e.position > match_waits_in.after AND e.position <= upto
      UNION
      SELECT w.tenant, w.saga, w.id, w.step FROM headwater.saga_inbox AS i
      JOIN headwater.saga_waits AS w ON (w.type, w.field, w.tenant, w.key) = (i.type, i.field, i.tenant, i.key) AND w.matched IS NULL AND w.after < i.position
      WHERE i.position > match_waits_in.after AND i.position <= upto
    ), matched AS (
      UPDATE headwater.saga_waits AS w SET matched = m.position
      FROM (SELECT t.*, (SELECT min(i.position) FROM headwater.saga_inbox AS i
                         WHERE (i.type, i.field, i.tenant, i.key) = (n.type, n.field, n.tenant, n.key) AND i.position > n.after) AS position
            FROM touched AS t JOIN headwater.saga_waits AS n USING (tenant, saga, id, step)) AS m
      WHERE (w.tenant, w.saga, w.id, w.step) = (m.tenant, m.saga, m.id, m.step) AND m.position IS NOT NULL
      RETURNING w.tenant, w.saga, w.id, greatest(w.position, w.matched) AS at
    ) SELECT m.tenant, s.queue, jsonb_agg(DISTINCT jsonb_build_object('job', 'headwater.saga', 'arguments',
               jsonb_build_object('saga', m.saga, 'instance', m.id, 'timer', false))) AS items
      FROM matched AS m JOIN headwater.sagas AS s USING (tenant, saga, id) WHERE m.at > done_upto GROUP BY m.tenant, s.queue
  LOOP
    PERFORM set_config('headwater.tenant', o.tenant, true);
    PERFORM headwater.enqueue_many(o.queue, o.items, o.tenant);
  END LOOP;
END
$$;

-- Empties the view.
CREATE FUNCTION headwater.clear_sagas() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.saga_waits;
  DELETE FROM headwater.saga_wait_types;
  DELETE FROM headwater.saga_inbox;
$$;

-- What the streams say is waited for up to a position, and the view does not, or the other way round.
CREATE FUNCTION headwater.differing_waits(upto bigint) RETURNS TABLE (tenant text, instance text, step int, expected bigint, stored bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH told AS MATERIALIZED (
    SELECT e.tenant, e.data->>'saga' AS saga, e.data->>'instance' AS id, e.type, (e.data->>'step')::int AS step, e.position,
           e.data->>'type' IS NOT NULL AS waits, e.data->'undo' = 'true' AS undo
    FROM headwater.events AS e WHERE e.position <= upto AND e.type IN ('saga.waiting', 'saga.step_done', 'saga.finished', 'saga.abandoned')
  ), open AS (
    SELECT t.* FROM told AS t WHERE t.type = 'saga.waiting' AND t.waits AND NOT EXISTS (
      SELECT FROM told AS o WHERE (o.tenant, o.saga, o.id) = (t.tenant, t.saga, t.id)
        AND CASE o.type WHEN 'saga.step_done' THEN o.step = t.step WHEN 'saga.finished' THEN true WHEN 'saga.abandoned' THEN NOT o.undo ELSE false END)
  ) SELECT coalesce(o.tenant, w.tenant), coalesce(o.saga || '/' || o.id, w.saga || '/' || w.id), coalesce(o.step, w.step), o.position, w.position
  FROM open AS o FULL JOIN headwater.saga_waits AS w ON (w.tenant, w.saga, w.id, w.step) = (o.tenant, o.saga, o.id, o.step)
  WHERE o.position IS DISTINCT FROM w.position
$$;

-- Ended instances go from the table after so many days, their streams stay; and events that nobody can wait for.
CREATE FUNCTION headwater.purge_sagas(keep_days int DEFAULT 30, max_rows int DEFAULT 10000) RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH old AS (
    SELECT s.tenant, s.saga, s.id FROM headwater.sagas AS s WHERE s.ended_at < clock_timestamp() - make_interval(days => keep_days)
    ORDER BY s.ended_at LIMIT max_rows FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM headwater.sagas AS s USING old AS o WHERE (s.tenant, s.saga, s.id) = (o.tenant, o.saga, o.id) RETURNING 1
  ), forgotten AS (
    DELETE FROM headwater.saga_inbox AS i WHERE i.position IN (
      SELECT x.position FROM headwater.saga_inbox AS x
      WHERE x.position < coalesce((SELECT min(s.start_position) FROM headwater.sagas AS s WHERE s.ended_at IS NULL),
                                  (SELECT c.position FROM headwater.checkpoints AS c WHERE c.view = 'sagas'))
      ORDER BY x.position LIMIT max_rows)
  ) SELECT count(*)::int FROM gone
$$;

REVOKE EXECUTE ON FUNCTION headwater.apply_sagas, headwater.start_sagas_of, headwater.take_waits_in, headwater.match_waits_in, headwater.clear_sagas,
  headwater.differing_waits, headwater.purge_sagas FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.apply_sagas, headwater.clear_sagas, headwater.purge_sagas TO headwater_relay;
GRANT EXECUTE ON FUNCTION headwater.differing_waits TO headwater_relay, headwater_operator;
RESET ROLE;
