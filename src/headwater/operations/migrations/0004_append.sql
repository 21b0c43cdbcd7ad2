-- The only ways into the log: append for one event, append_many for several that stand or fall
-- together, append_groups for several callers that share a commit.
SET ROLE headwater_owner;

CREATE FUNCTION headwater.check_tenant(tenant text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF tenant !~ '^[A-Za-z0-9][A-Za-z0-9_.:-]*$' OR length(tenant) > 100 THEN
    RAISE EXCEPTION 'The tenant % is malformed.', quote_literal(left(tenant, 100))
      USING ERRCODE = 'HW007', HINT = 'Use up to 100 letters, digits, and _ . : -, a letter or digit first.';
  END IF;
END
$$;

CREATE FUNCTION headwater.other_tenant(wanted text) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF wanted IS NULL THEN
    RAISE EXCEPTION 'No tenant is set.'
      USING ERRCODE = 'HW007', HINT = 'Run SELECT set_config(''headwater.tenant'', ''...'', true) first in the transaction.';
  END IF;
  PERFORM headwater.check_tenant(wanted);
  IF pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user), 'headwater_operator', 'MEMBER') THEN
    RETURN wanted;
  END IF;
  RAISE EXCEPTION 'The tenant % is not this session''s.', quote_literal(wanted)
    USING ERRCODE = 'HW006', HINT = 'Set headwater.tenant to the tenant whose fact it is; only operators append for others.';
END
$$;

-- Whose facts these are: the session's tenant; another only for operators. Inlined where it is called,
-- since every append asks.
CREATE FUNCTION headwater.acting_tenant(wanted text) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN current_setting('headwater.tenant', true) <> ''
               AND coalesce(wanted, current_setting('headwater.tenant', true)) = current_setting('headwater.tenant', true)
              THEN current_setting('headwater.tenant', true) ELSE headwater.other_tenant(wanted) END
$$;

-- What is wrong with an event beside its data, as SQLSTATE and sentence; NULL when nothing is.
CREATE FUNCTION headwater.envelope_refusal(stream text, metadata jsonb, keys text[], data jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN CASE
    WHEN stream IS NULL OR length(stream) > 255 OR stream !~ '^[a-z][a-z0-9_-]*/[^\x01-\x20\x7f]+$'
      THEN 'HW005The stream name ' || coalesce(quote_literal(left(stream, 300)), 'NULL') || ' is malformed.'
    WHEN data IS NULL THEN 'HW004The data is missing.'
    WHEN pg_column_size(data) > 1048576 THEN 'HW009The data is larger than 1 MiB.'
    WHEN metadata IS NULL OR jsonb_typeof(metadata) <> 'object' THEN 'HW004The metadata is not an object.'
    WHEN pg_column_size(metadata) > 65536 THEN 'HW009The metadata is larger than 64 KiB.'
    WHEN keys IS NOT NULL AND (cardinality(keys) > 32 OR pg_column_size(keys) > 8192 OR array_position(keys, NULL) IS NOT NULL)
      THEN 'HW009An event has more than 32 keys, or more than 8 KiB of them, or a NULL among them.'
  END;
END
$$;

CREATE FUNCTION headwater.hint_of(sqlstate_ text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE sqlstate_
    WHEN 'HW001' THEN 'Read the stream again, decide again, and append with the version you then saw.'
    WHEN 'HW002' THEN 'Use a new key for a new request; send the same request to get its first result.'
    WHEN 'HW003' THEN 'Register the type: declare it in the app and run headwater init, or call headwater.register_type.'
    WHEN 'HW004' THEN 'Mend the data; SELECT schema FROM headwater.event_types shows what fits.'
    WHEN 'HW005' THEN 'Write category/id: a lower-case category, a slash, and an id without spaces; at most 255 characters.'
    WHEN 'HW009' THEN 'Split it, or store the large part elsewhere and keep a reference in the event.'
  END
$$;

-- A uuid version 7 derived from time and position: unique within the log, and no random bits to
-- draw. The prefix is the same for all events of a statement: twelve digits of milliseconds (until the
-- year 2527), the version, three digits of the log's id, the variant. The position follows in fifteen.
CREATE FUNCTION headwater.id_prefix(log_id text, moment timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT '0' || to_hex((date_part('epoch', moment) * 1000)::bigint) || '7' || substr(log_id, 1, 3) || '8'
$$;
CREATE FUNCTION headwater.event_id(prefix text, pos bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT (prefix || to_hex(pos + 72057594037927936))::uuid $$;

CREATE FUNCTION headwater.request_hash(request jsonb) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$ SELECT sha256(convert_to(request::text, 'UTF8')) $$;

-- Claims an idempotency key in the caller's transaction. A concurrent request with the same key
-- waits here for the first one's outcome. `state` is new, duplicate (with the first result), reused
-- (for another request) or malformed.
CREATE FUNCTION headwater.claim_key(tenant text, key text, request_hash bytea)
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
      SET request_hash = excluded.request_hash, expires_at = excluded.expires_at, positions = NULL, versions = NULL
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

CREATE FUNCTION headwater.key_refusal(state text, key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE state
    WHEN 'reused' THEN 'HW002The idempotency key ' || quote_literal(key) || ' was used for another request.'
    WHEN 'malformed' THEN 'HW009The idempotency key is not 1 to 255 printable ASCII characters.'
  END
$$;

-- What is wrong with an event, as SQLSTATE and sentence; NULL when nothing is. Inlined into the
-- statement that appends: the plain envelope takes a few operators, any other is looked at in full.
CREATE FUNCTION headwater.event_refusal(
  stream text, type text, schema_version int, data jsonb, metadata jsonb, keys text[]
) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN stream ~ '^[a-z][a-z0-9_-]*/[^\x01-\x20\x7f]+$' AND length(stream) <= 255
               AND pg_column_size(data) <= 1048576 AND metadata = '{}' AND keys IS NULL
              THEN headwater.refusal(type, schema_version, stream, data)
              ELSE coalesce(headwater.envelope_refusal(stream, metadata, keys, data),
                            headwater.refusal(type, schema_version, stream, data)) END
$$;

CREATE FUNCTION headwater.append(
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
  IF append.idempotency_key IS NOT NULL THEN
    UPDATE headwater.idempotency AS i SET positions = ARRAY[append.position], versions = ARRAY[append.version]
     WHERE i.tenant = whose AND i.key = append.idempotency_key;
  END IF;
  RETURN NEXT;
END
$$;

-- Several groups of events in one transaction; each group stands or falls as a whole and harms no
-- other. One array per field, an element per event, in order; NULL for a field that no event has.
-- `groups` numbers the group of each event; its expected_version is its stream's version just before
-- it. `idempotency_keys` maps a group's number to its key. `positions` and `versions` are those of
-- the events appended, in order; `outcomes` tells of every group that was not: refused, or a
-- duplicate with its first result.
CREATE FUNCTION headwater.append_groups(
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

-- Appends every group not excluded, or nothing: then `failed` says which groups are at fault.
CREATE FUNCTION headwater.append_all(
  streams text[], types text[], data jsonb[], groups int[], expected_versions int[], metadata jsonb[], ids uuid[],
  keys jsonb[], occurred_at timestamptz[], schema_versions int[], whose text, excluded_groups int[], id_prefix text
) RETURNS TABLE (positions bigint[], versions int[], failed jsonb)
LANGUAGE sql VOLATILE AS $$
  WITH input AS MATERIALIZED (
    SELECT e.*, headwater.event_refusal(e.stream, e.type, e.schema_version, e.data, e.metadata, e.keys) AS refusal
    FROM (SELECT coalesce(r.g, 0) AS g, r.ord, r.stream, r.type, r.data, r.expected_version,
                 coalesce(r.metadata, '{}') AS metadata, r.id,
                 CASE WHEN r.keys IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(r.keys)) END AS keys,
                 r.occurred_at, coalesce(r.schema_version, 1) AS schema_version
          FROM unnest(append_all.streams, append_all.types, append_all.data, append_all.groups,
                      append_all.expected_versions, append_all.metadata, append_all.ids, append_all.keys,
                      append_all.occurred_at, append_all.schema_versions)
               WITH ORDINALITY AS r(stream, type, data, g, expected_version, metadata, id, keys, occurred_at, schema_version, ord)
          WHERE coalesce(r.g, 0) <> ALL (excluded_groups) OFFSET 0) AS e
  ), refused AS MATERIALIZED (
    SELECT DISTINCT ON (i.g) i.g, i.refusal FROM input AS i WHERE i.refusal IS NOT NULL ORDER BY i.g, i.ord
  ), reserved AS (
    -- Locked in sorted order, so that two callers never wait for each other; and before any
    -- position is drawn, so that each stream's positions stay in version order.
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    SELECT whose, i.stream, count(*), (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p)
    FROM input AS i WHERE NOT EXISTS (SELECT FROM refused)
    GROUP BY i.stream ORDER BY i.stream
    ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + excluded.version
    RETURNING s.stream, s.version
  ), numbered AS MATERIALIZED (
    SELECT i.*, (v.version - count(*) OVER (PARTITION BY i.stream)
                 + row_number() OVER (PARTITION BY i.stream ORDER BY i.ord))::int AS version
    FROM input AS i JOIN reserved AS v ON v.stream = i.stream
  ), conflicting AS MATERIALIZED (
    SELECT DISTINCT ON (n.g) n.g, n.stream, n.version - 1 AS actual, n.expected_version AS expected
    FROM numbered AS n WHERE n.version - 1 <> n.expected_version ORDER BY n.g, n.ord
  ), inserted AS (
    INSERT INTO headwater.events
      (position, tenant, stream, version, type, schema_version, id, recorded_at, occurred_at, data, metadata, keys)
    SELECT o.position, whose, o.stream, o.version, o.type, o.schema_version,
           coalesce(o.id, headwater.event_id(append_all.id_prefix, o.position)), statement_timestamp(),
           o.occurred_at, o.data, o.metadata, o.keys
    FROM (SELECT nextval('headwater.position_seq') AS position, n.*
          FROM (SELECT * FROM numbered WHERE NOT EXISTS (SELECT FROM conflicting) ORDER BY ord) AS n) AS o
    RETURNING position, version
  )
  SELECT array_agg(x.position ORDER BY x.position), array_agg(x.version ORDER BY x.position),
         coalesce((SELECT jsonb_agg(jsonb_build_object('g', f.g, 'refusal', f.refusal)) FROM refused AS f), '[]')
         || coalesce((SELECT jsonb_agg(jsonb_build_object('g', c.g, 'stream', c.stream, 'actual', c.actual, 'expected', c.expected,
              'refusal', 'HW001The stream ' || quote_literal(c.stream) || ' is at version ' || c.actual || ', not ' || c.expected || '.'))
              FROM conflicting AS c), '[]')
  FROM inserted AS x
$$;

-- Several events that stand or fall together: a JSON array of objects with the fields of append.
CREATE FUNCTION headwater.append_many(
  events jsonb, idempotency_key text DEFAULT NULL, tenant text DEFAULT NULL
) RETURNS TABLE ("position" bigint, version int, token text, duplicate boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  known text[] := ARRAY['stream', 'type', 'data', 'expected_version', 'metadata', 'id', 'keys', 'occurred_at', 'schema_version'];
  done record;
  outcome jsonb;
BEGIN
  IF jsonb_typeof(append_many.events) IS DISTINCT FROM 'array' OR jsonb_path_exists(append_many.events, '$[*] ? (@.type() != "object")') THEN
    RAISE EXCEPTION 'The events are not an array of objects.' USING ERRCODE = 'HW004', HINT = 'Pass a JSON array of objects.';
  END IF;
  IF jsonb_array_length(append_many.events) NOT BETWEEN 1 AND 100000 THEN
    RAISE EXCEPTION 'A call takes 1 to 100,000 events, not %.', jsonb_array_length(append_many.events)
      USING ERRCODE = 'HW009', HINT = 'Split them; calls in one transaction still commit together.';
  END IF;
  SELECT e.value - known INTO outcome FROM jsonb_array_elements(append_many.events) AS e WHERE e.value - known <> '{}' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'An event has the unknown field %.', (SELECT min(k) FROM jsonb_object_keys(outcome) AS k)
      USING ERRCODE = 'HW004', HINT = 'The fields are ' || array_to_string(known, ', ') || '.';
  END IF;
  SELECT g.* INTO done
  FROM (SELECT array_agg(r.stream ORDER BY ord) AS streams, array_agg(r.type ORDER BY ord) AS types, array_agg(r.data ORDER BY ord) AS data,
               array_agg(r.expected_version ORDER BY ord) AS expected_versions, array_agg(r.metadata ORDER BY ord) AS metadata,
               array_agg(r.id ORDER BY ord) AS ids, array_agg(r.keys ORDER BY ord) AS keys,
               array_agg(r.occurred_at ORDER BY ord) AS occurred_at, array_agg(r.schema_version ORDER BY ord) AS schema_versions
        FROM ROWS FROM (jsonb_to_recordset(append_many.events) AS (
          stream text, type text, data jsonb, expected_version int, metadata jsonb, id uuid, keys jsonb,
          occurred_at timestamptz, schema_version int)) WITH ORDINALITY
          AS r(stream, type, data, expected_version, metadata, id, keys, occurred_at, schema_version, ord)) AS a
  CROSS JOIN LATERAL headwater.append_groups(a.streams, a.types, a.data, NULL, a.expected_versions, a.metadata, a.ids, a.keys,
    a.occurred_at, a.schema_versions, append_many.tenant,
    CASE WHEN append_many.idempotency_key IS NULL THEN '{}' ELSE jsonb_build_object('0', append_many.idempotency_key) END) AS g;
  outcome := done.outcomes->0;
  IF outcome->>'refusal' IS NOT NULL THEN
    RAISE EXCEPTION '%', substr(outcome->>'refusal', 6)
      USING ERRCODE = left(outcome->>'refusal', 5), HINT = headwater.hint_of(left(outcome->>'refusal', 5)),
            DETAIL = (outcome - '{g,refusal,positions,versions}'::text[])::text;
  END IF;
  IF outcome IS NOT NULL THEN
    RETURN QUERY SELECT p.position, p.version, split_part(done.token, '.', 1) || '.' || split_part(done.token, '.', 2) || '.' || p.position, true
    FROM ROWS FROM (jsonb_array_elements_text(outcome->'positions'), jsonb_array_elements_text(outcome->'versions')) AS x(pos, ver)
    CROSS JOIN LATERAL (SELECT x.pos::bigint, x.ver::int) AS p("position", version);
  ELSE
    RETURN QUERY SELECT p."position", p.version, done.token, false FROM unnest(done.positions, done.versions) AS p("position", version);
  END IF;
END
$$;

-- Keys past their time go; the relay calls this every hour, in small bites.
CREATE FUNCTION headwater.purge_idempotency(max_rows int DEFAULT 10000) RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH expired AS (
    SELECT tenant, key FROM headwater.idempotency
    WHERE expires_at < clock_timestamp() - interval '1 minute' ORDER BY expires_at LIMIT max_rows FOR UPDATE SKIP LOCKED
  ), gone AS (
    DELETE FROM headwater.idempotency AS i USING expired AS e WHERE i.tenant = e.tenant AND i.key = e.key RETURNING 1
  )
  SELECT count(*)::int FROM gone
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.append, headwater.append_many, headwater.append_groups
  TO headwater_app, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.purge_idempotency TO headwater_relay, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.block_of, headwater.block_start TO headwater_app, headwater_relay, headwater_operator;
RESET ROLE;
