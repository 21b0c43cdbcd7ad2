-- What later decisions may depend on: the keys of events. A key has a version, as a stream has, which
-- counts the events that carry it; a decision names the versions that it saw.
SET ROLE headwater_owner;

CREATE TABLE headwater.keys (
  tenant text NOT NULL,
  key text NOT NULL,
  version int NOT NULL,
  PRIMARY KEY (tenant, key)
) WITH (fillfactor = 80);

CREATE TABLE headwater.key_events (
  tenant text NOT NULL,
  key text NOT NULL,
  position bigint NOT NULL,
  PRIMARY KEY (tenant, key, position)
);

-- Appends under way finish first, and later ones count their own keys: none is missed in between.
LOCK TABLE headwater.events IN SHARE ROW EXCLUSIVE MODE;
INSERT INTO headwater.key_events (tenant, key, position)
SELECT DISTINCT e.tenant, k.key, e.position FROM headwater.events AS e CROSS JOIN LATERAL unnest(e.keys) AS k(key) WHERE e.keys IS NOT NULL;
INSERT INTO headwater.keys (tenant, key, version)
SELECT k.tenant, k.key, count(*) FROM headwater.key_events AS k GROUP BY k.tenant, k.key;

ALTER TABLE headwater.keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.keys TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.keys FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_reads ON headwater.keys FOR SELECT TO headwater_relay USING (true);
CREATE POLICY operator_reads ON headwater.keys FOR SELECT TO headwater_operator USING (true);

ALTER TABLE headwater.key_events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.key_events TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.key_events FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_reads ON headwater.key_events FOR SELECT TO headwater_relay USING (true);
CREATE POLICY operator_reads ON headwater.key_events FOR SELECT TO headwater_operator USING (true);
GRANT SELECT ON headwater.keys, headwater.key_events TO headwater_app, headwater_relay, headwater_operator;

-- Counts events by their keys, before their positions are drawn: whoever waits here for a decision on
-- the same key holds back no reader. In sorted order, so that two callers never wait for each other.
CREATE FUNCTION headwater.count_keys(whose text, keys text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM unnest(count_keys.keys) AS k(key) WHERE length(k.key) NOT BETWEEN 1 AND 255) THEN
    RAISE EXCEPTION 'A key has more than 255 characters, or none.' USING ERRCODE = 'HW009', HINT = headwater.hint_of('HW009');
  END IF;
  INSERT INTO headwater.keys AS n (tenant, key, version)
  SELECT whose, k.key, count(*) FROM unnest(count_keys.keys) AS k(key) WHERE k.key IS NOT NULL GROUP BY k.key ORDER BY k.key
  ON CONFLICT (tenant, key) DO UPDATE SET version = n.version + excluded.version;
END
$$;

-- Refuses to go on where a stream or a key is not at the version that a decision saw, and holds all of
-- them as they are until the transaction ends. `streams` and `keys` map names to versions, 0 for one that
-- has no events. Keys come before streams, as in an append, each in sorted order.
CREATE FUNCTION headwater.require(streams jsonb DEFAULT '{}', keys jsonb DEFAULT '{}', tenant text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(require.tenant);
  wrong text;
  changed record;
BEGIN
  PERFORM headwater.check_tenant(whose);
  IF jsonb_typeof(require.streams) IS DISTINCT FROM 'object' OR jsonb_typeof(require.keys) IS DISTINCT FROM 'object'
     OR EXISTS (
       SELECT FROM jsonb_array_elements(jsonb_build_array(require.streams, require.keys)) AS o(seen)
       CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(o.seen) WHEN 'object' THEN o.seen ELSE '{}' END) AS v
       WHERE v.value::text !~ '^[0-9]{1,9}$') THEN
    RAISE EXCEPTION 'What a decision saw is not two objects of names and versions.'
      USING ERRCODE = 'HW004', HINT = 'Write SELECT headwater.require(''{"order/42": 3}'', ''{"mail:a@b.example": 0}'').';
  END IF;
  IF (SELECT count(*) FROM jsonb_object_keys(require.streams)) + (SELECT count(*) FROM jsonb_object_keys(require.keys)) > 1000 THEN
    RAISE EXCEPTION 'A decision depends on more than 1,000 streams and keys.'
      USING ERRCODE = 'HW009', HINT = 'Decide on a key that they share.';
  END IF;
  SELECT k INTO wrong FROM jsonb_object_keys(require.keys) AS k WHERE length(k) NOT BETWEEN 1 AND 255 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'A key has more than 255 characters, or none.' USING ERRCODE = 'HW009', HINT = headwater.hint_of('HW009');
  END IF;
  SELECT s INTO wrong FROM jsonb_object_keys(require.streams) AS s
  WHERE length(s) > 255 OR s !~ '^[a-z][a-z0-9_-]*/[^\x01-\x20\x7f]+$' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'The stream name % is malformed.', quote_literal(left(wrong, 300)) USING ERRCODE = 'HW005', HINT = headwater.hint_of('HW005');
  END IF;

  -- What has no row yet gets one, so that there is something to hold; what has one is locked, and not
  -- written. Each kind in one statement, so that new and known names are taken in one order: an append
  -- that carries the same keys takes them in the same.
  INSERT INTO headwater.keys AS n (tenant, key, version)
  SELECT whose, k, 0 FROM jsonb_object_keys(require.keys) AS k ORDER BY k
  ON CONFLICT (tenant, key) DO UPDATE SET version = n.version WHERE false;
  INSERT INTO headwater.streams AS n (tenant, stream, version, first_position)
  SELECT whose, s, 0, (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p)
  FROM jsonb_object_keys(require.streams) AS s ORDER BY s
  ON CONFLICT (tenant, stream) DO UPDATE SET version = n.version WHERE false;

  SELECT * INTO changed FROM (
    SELECT 'key' AS kind, n.key AS name, n.version AS actual, (require.keys->>n.key)::int AS expected
    FROM headwater.keys AS n WHERE n.tenant = whose AND n.key = ANY (ARRAY(SELECT jsonb_object_keys(require.keys)))
    UNION ALL
    SELECT 'stream', n.stream, n.version, (require.streams->>n.stream)::int
    FROM headwater.streams AS n WHERE n.tenant = whose AND n.stream = ANY (ARRAY(SELECT jsonb_object_keys(require.streams)))) AS c
  WHERE c.actual <> c.expected ORDER BY c.kind, c.name LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'The % % is at version %, not %.', changed.kind, quote_literal(changed.name), changed.actual, changed.expected
      USING ERRCODE = 'HW012', HINT = 'Look again, decide again, and require the versions that you then saw.',
            DETAIL = jsonb_build_object(changed.kind, changed.name, 'actual', changed.actual, 'expected', changed.expected);
  END IF;
END
$$;

-- The ways into the log, which now count events by their keys.
CREATE OR REPLACE FUNCTION headwater.append(
  stream text, type text, data jsonb,
  expected_version int DEFAULT NULL,
  metadata jsonb DEFAULT '{}',
  idempotency_key text DEFAULT NULL,
  tenant text DEFAULT NULL,
  id uuid DEFAULT NULL,
  keys text[] DEFAULT NULL,
  occurred_at timestamptz DEFAULT NULL,
  schema_version int DEFAULT 1
) RETURNS TABLE ("position" bigint, version int, token text, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(append.tenant);
  refusal text := headwater.event_refusal(append.stream, append.type, append.schema_version, append.data,
                                          append.metadata, append.keys);
  log headwater.log;
BEGIN
  -- As few expressions as may be: Postgres prepares each anew in every transaction.
  IF refusal IS NOT NULL THEN
    RAISE EXCEPTION '%', substr(refusal, 6)
      USING ERRCODE = left(refusal, 5), HINT = headwater.hint_of(left(refusal, 5));
  END IF;
  IF append.idempotency_key IS NOT NULL THEN
    SELECT c.state = 'duplicate', c.positions[1], c.versions[1], headwater.key_refusal(c.state, append.idempotency_key)
      INTO duplicate, position, version, refusal
    FROM headwater.claim_key(whose, append.idempotency_key, headwater.request_hash(
      jsonb_build_array(jsonb_build_array(append.stream, append.type, append.data, append.schema_version,
                                          append.occurred_at, append.keys, append.expected_version)))) AS c;
    IF refusal IS NOT NULL THEN
      RAISE EXCEPTION '%', substr(refusal, 6)
        USING ERRCODE = left(refusal, 5), HINT = headwater.hint_of(left(refusal, 5));
    END IF;
    IF duplicate THEN
      SELECT l.log_id || '.' || l.epoch || '.' || append.position INTO token FROM headwater.log AS l;
      RETURN NEXT;
      RETURN;
    END IF;
  END IF;

  IF append.keys IS NOT NULL THEN
    PERFORM headwater.count_keys(whose, append.keys);
  END IF;
  -- Taking the stream's row before drawing the position keeps each stream's positions in version order.
  UPDATE headwater.streams AS s SET version = s.version + 1 FROM headwater.log AS l
   WHERE s.tenant = whose AND s.stream = append.stream
  RETURNING s.version, l.log_id, l.epoch INTO version, log.log_id, log.epoch;
  IF NOT FOUND THEN
    PERFORM headwater.check_tenant(whose);  -- a stream that exists has a tenant that was checked
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    -- A lower bound: a plain read of the sequence may run up to 32 ahead of what was drawn.
    SELECT whose, append.stream, 1, greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p
    ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + 1
    RETURNING s.version INTO version;
    SELECT l.log_id, l.epoch INTO log.log_id, log.epoch FROM headwater.log AS l;
  END IF;
  IF version - 1 <> append.expected_version THEN
    RAISE EXCEPTION 'The stream % is at version %, not %.', quote_literal(append.stream), version - 1, append.expected_version
      USING ERRCODE = 'HW001', HINT = headwater.hint_of('HW001'),
            DETAIL = jsonb_build_object('stream', append.stream, 'actual', version - 1, 'expected', append.expected_version);
  END IF;
  INSERT INTO headwater.events AS e
    (position, tenant, stream, version, type, schema_version, id, recorded_at, occurred_at, data, metadata, keys)
  SELECT n.position, whose, append.stream, version, append.type, append.schema_version,
         coalesce(append.id, headwater.event_id(headwater.id_prefix(log.log_id, clock_timestamp()), n.position)),
         clock_timestamp(), append.occurred_at, append.data, append.metadata, append.keys
  FROM (SELECT nextval('headwater.position_seq') AS position OFFSET 0) AS n
  RETURNING e.position, log.log_id || '.' || log.epoch || '.' || e.position, false INTO position, token, duplicate;
  IF append.keys IS NOT NULL THEN
    INSERT INTO headwater.key_events (tenant, key, position) SELECT DISTINCT whose, k.key, append.position FROM unnest(append.keys) AS k(key);
  END IF;
  IF append.idempotency_key IS NOT NULL THEN
    UPDATE headwater.idempotency AS i SET positions = ARRAY[append.position], versions = ARRAY[append.version]
     WHERE i.tenant = whose AND i.key = append.idempotency_key;
  END IF;
  RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION headwater.append_groups(
  streams text[], types text[], data jsonb[], groups int[] DEFAULT NULL, expected_versions int[] DEFAULT NULL,
  metadata jsonb[] DEFAULT NULL, ids uuid[] DEFAULT NULL, keys jsonb[] DEFAULT NULL,
  occurred_at timestamptz[] DEFAULT NULL, schema_versions int[] DEFAULT NULL,
  tenant text DEFAULT NULL, idempotency_keys jsonb DEFAULT '{}'
) RETURNS TABLE (positions bigint[], versions int[], token text, outcomes jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(append_groups.tenant);
  keyed boolean := append_groups.idempotency_keys <> '{}';
  excluded_groups int[] := '{}';
  failed jsonb;
  log_id text;
  epoch int;
BEGIN
  PERFORM headwater.check_tenant(whose);
  SELECT l.log_id, l.epoch INTO log_id, epoch FROM headwater.log AS l;
  outcomes := '[]';
  LOOP
    -- Everything is reserved on the assumption that every group succeeds; if one does not, this
    -- block rolls back and runs again without it.
    BEGIN
      failed := '[]';
      IF keyed THEN
        SELECT coalesce(jsonb_agg(jsonb_build_object('g', k.g, 'positions', c.positions, 'versions', c.versions,
                 'refusal', headwater.key_refusal(c.state, k.key))) FILTER (WHERE c.state <> 'new'), '[]') INTO failed
        FROM (SELECT j.key::int AS g, j.value AS key, q.request
              FROM jsonb_each_text(append_groups.idempotency_keys) AS j
              JOIN (SELECT coalesce(r.g, 0) AS g,
                           jsonb_agg(jsonb_build_array(r.stream, r.type, r.data, coalesce(r.schema_version, 1), r.occurred_at,
                                                       r.keys, r.expected_version) ORDER BY r.ord) AS request
                    FROM unnest(append_groups.streams, append_groups.types, append_groups.data, append_groups.groups,
                                append_groups.expected_versions, append_groups.keys, append_groups.occurred_at, append_groups.schema_versions)
                         WITH ORDINALITY AS r(stream, type, data, g, expected_version, keys, occurred_at, schema_version, ord)
                    GROUP BY 1) AS q ON q.g = j.key::int
              WHERE j.key::int <> ALL (excluded_groups) ORDER BY j.value) AS k
        CROSS JOIN LATERAL headwater.claim_key(whose, k.key, headwater.request_hash(k.request)) AS c;
      END IF;
      IF failed = '[]' AND append_groups.keys IS NOT NULL THEN
        PERFORM headwater.count_keys(whose, ARRAY(
          SELECT k.key FROM unnest(append_groups.keys, append_groups.groups) AS r(keys, g)
          CROSS JOIN LATERAL jsonb_array_elements_text(r.keys) AS k(key) WHERE coalesce(r.g, 0) <> ALL (excluded_groups)));
      END IF;
      IF failed = '[]' THEN
        SELECT a.positions, a.versions, a.failed INTO positions, versions, failed
        FROM headwater.append_all(append_groups.streams, append_groups.types, append_groups.data, append_groups.groups,
          append_groups.expected_versions, append_groups.metadata, append_groups.ids, append_groups.keys,
          append_groups.occurred_at, append_groups.schema_versions, whose, excluded_groups,
          headwater.id_prefix(log_id, statement_timestamp())) AS a;
      END IF;
      IF failed <> '[]' THEN
        RAISE EXCEPTION 'a group failed' USING ERRCODE = 'HW099';
      END IF;
      IF append_groups.keys IS NOT NULL THEN
        INSERT INTO headwater.key_events (tenant, key, position)
        SELECT DISTINCT whose, k.key, append_groups.positions[r.n]
        FROM (SELECT u.keys, row_number() OVER (ORDER BY u.ord) AS n
              FROM unnest(append_groups.keys, append_groups.groups) WITH ORDINALITY AS u(keys, g, ord)
              WHERE coalesce(u.g, 0) <> ALL (excluded_groups)) AS r
        CROSS JOIN LATERAL jsonb_array_elements_text(r.keys) AS k(key);
      END IF;
      IF keyed THEN
        UPDATE headwater.idempotency AS i SET positions = d.positions, versions = d.versions
        FROM (SELECT n.g, array_agg(append_groups.positions[n.n] ORDER BY n.n) AS positions,
                     array_agg(append_groups.versions[n.n] ORDER BY n.n) AS versions
              FROM (SELECT coalesce(append_groups.groups[o], 0) AS g, row_number() OVER (ORDER BY o) AS n
                    FROM generate_subscripts(append_groups.streams, 1) AS o
                    WHERE coalesce(append_groups.groups[o], 0) <> ALL (excluded_groups)) AS n
              GROUP BY n.g) AS d
        JOIN jsonb_each_text(append_groups.idempotency_keys) AS k ON k.key::int = d.g
        WHERE i.tenant = whose AND i.key = k.value;
      END IF;
      EXIT;
    EXCEPTION WHEN SQLSTATE 'HW099' THEN
      outcomes := outcomes || failed;
      excluded_groups := excluded_groups || ARRAY(SELECT (f.value->>'g')::int FROM jsonb_array_elements(failed) AS f);
    END;
  END LOOP;
  token := log_id || '.' || epoch || '.' || coalesce(positions[cardinality(positions)], 0);
  RETURN NEXT;
END
$$;

-- An answer that is given once: a command's, or that of an application's own endpoint. It is claimed in the
-- transaction of the facts, under a key and a hash of what was asked, and settled in the same. `state` is
-- new, duplicate (with the first answer), reused (for another request) or malformed.
ALTER TABLE headwater.idempotency ADD COLUMN answer bytea;

-- A key whose time is over and that is claimed anew has no answer yet: the one it had goes.
CREATE OR REPLACE FUNCTION headwater.claim_key(tenant text, key text, request_hash bytea)
RETURNS TABLE (state text, positions bigint[], versions int[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  first_ headwater.idempotency;
BEGIN
  IF claim_key.key !~ '^[\x20-\x7e]+$' OR length(claim_key.key) > 255 THEN
    RETURN QUERY SELECT 'malformed', NULL::bigint[], NULL::int[];
    RETURN;
  END IF;
  LOOP
    INSERT INTO headwater.idempotency AS i (tenant, key, request_hash, expires_at)
    SELECT claim_key.tenant, claim_key.key, claim_key.request_hash,
           clock_timestamp() + make_interval(secs => l.idempotency_seconds)
    FROM headwater.log AS l
    ON CONFLICT (tenant, key) DO UPDATE
      SET request_hash = excluded.request_hash, expires_at = excluded.expires_at, positions = NULL, versions = NULL, answer = NULL
      WHERE i.expires_at < clock_timestamp();
    IF FOUND THEN
      RETURN QUERY SELECT 'new', NULL::bigint[], NULL::int[];
      RETURN;
    END IF;
    SELECT * INTO first_ FROM headwater.idempotency AS i
     WHERE i.tenant = claim_key.tenant AND i.key = claim_key.key;
    CONTINUE WHEN NOT FOUND;  -- purged in between
    RETURN QUERY SELECT CASE WHEN first_.request_hash = claim_key.request_hash THEN 'duplicate' ELSE 'reused' END,
                        first_.positions, first_.versions;
    RETURN;
  END LOOP;
END
$$;

-- A request that comes again while the first is under way waits for its outcome, or, without `wait`, is
-- told that it is in_flight.
CREATE FUNCTION headwater.claim(key text, request_hash bytea, tenant text DEFAULT NULL, wait boolean DEFAULT true)
RETURNS TABLE (state text, positions bigint[], versions int[], answer bytea)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(claim.tenant);
BEGIN
  PERFORM headwater.check_tenant(whose);
  IF NOT claim.wait AND NOT pg_try_advisory_xact_lock(hashtextextended('headwater.claim ' || whose || ' ' || claim.key, 0)) THEN
    RETURN QUERY SELECT 'in_flight', NULL::bigint[], NULL::int[], NULL::bytea;
    RETURN;
  END IF;
  RETURN QUERY
  SELECT c.state, c.positions, c.versions,
         CASE c.state WHEN 'duplicate' THEN (SELECT i.answer FROM headwater.idempotency AS i WHERE i.tenant = whose AND i.key = claim.key) END
  FROM headwater.claim_key(whose, claim.key, claim.request_hash) AS c;
END
$$;

CREATE FUNCTION headwater.settle(key text, positions bigint[], versions int[], answer bytea DEFAULT NULL, tenant text DEFAULT NULL)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.idempotency AS i SET positions = settle.positions, versions = settle.versions, answer = settle.answer
  WHERE i.tenant = headwater.acting_tenant(settle.tenant) AND i.key = settle.key AND i.positions IS NULL AND i.answer IS NULL
$$;

REVOKE EXECUTE ON FUNCTION headwater.count_keys, headwater.require, headwater.claim, headwater.settle FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.require, headwater.claim, headwater.settle TO headwater_app, headwater_operator;
RESET ROLE;
