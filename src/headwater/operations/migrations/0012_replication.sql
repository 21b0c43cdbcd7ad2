-- Capture by logical replication: a reader follows one slot and appends what its transactions changed.
SET ROLE headwater_owner;

-- The slot of this log, and how far its changes are in the log. `applied` moves in the transaction that
-- appends the facts; `wanted` is how far someone waits for it to come. A new slot is a new generation.
CREATE TABLE headwater.replication (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  generation int NOT NULL,
  slot text NOT NULL,
  state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'lost')),
  detail text,
  applied pg_lsn NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  wanted pg_lsn NOT NULL DEFAULT '0/0'
) WITH (fillfactor = 10);
CREATE SEQUENCE headwater.replication_generation AS int;

-- Rows that a transaction changed while the log did not know them: a row read before that transaction
-- is too old to be told. The stream '' stands for all, by TRUNCATE. `reread` where the slot left values out.
CREATE TABLE headwater.replication_marks (capture int NOT NULL, stream text NOT NULL, xid bigint NOT NULL, reread boolean NOT NULL);

ALTER TABLE headwater.captures
  ADD COLUMN way text NOT NULL DEFAULT 'triggers' CHECK (way IN ('triggers', 'replication')),
  ADD COLUMN described jsonb,             -- by replication: the columns as the slot last described them
  ADD COLUMN joined pg_lsn,               -- by replication: from where the reader may ask for the table
  ADD COLUMN followed int,                -- by replication: the slot's generation of which a reader has asked for it
  ADD COLUMN comparing boolean NOT NULL DEFAULT false,  -- the backfill compares with the log
  DROP CONSTRAINT captures_state_check,
  ADD CONSTRAINT captures_state_check CHECK (state IN ('backfilling', 'live', 'lost', 'broken', 'released'));
GRANT SELECT ON headwater.replication, headwater.replication_marks TO headwater_operator, headwater_relay;
GRANT SELECT ON headwater.captures TO headwater_relay;

CREATE TYPE headwater.replicated_change AS (
  ord bigint, capture int, tenant text, stream text, gone boolean, data jsonb, exact jsonb, missing text[], xid bigint, committed timestamptz);

CREATE OR REPLACE FUNCTION headwater.captured_columns(c headwater.captures) RETURNS SETOF headwater.captured_column
LANGUAGE sql STABLE AS $$
  SELECT a.attnum, a.attname, coalesce(c.columns -> 'renamed' ->> a.attnum::text, a.attname), k.kind, e.kind,
         (SELECT array_agg(l.enumlabel::text ORDER BY l.enumlabel COLLATE "C") FROM pg_enum AS l WHERE l.enumtypid IN (k.base, e.base)),
         NOT a.attnotnull OR k.kind = 'float',
         k.kind IN ('json', 'json_text', 'bytes', 'array', 'other') OR (k.kind = 'text' AND (a.atttypmod = -1 OR a.atttypmod > 8192) AND k.base <> 'name'::regtype)
  FROM (SELECT p.attnum, p.attname::text, p.atttypid, p.atttypmod, p.attnotnull FROM pg_attribute AS p
        WHERE c.way = 'triggers' AND p.attrelid = c.relation AND p.attnum > 0 AND NOT p.attisdropped AND p.attgenerated <> 'v'
        UNION ALL SELECT d.number, d.name, d.type, d.typmod, d.required
        FROM jsonb_to_recordset(c.described) AS d(number smallint, name text, type oid, typmod int, required boolean) WHERE c.way = 'replication') AS a
  JOIN LATERAL headwater.kind_of(a.atttypid) AS k ON true JOIN pg_type AS t ON t.oid = k.base
  LEFT JOIN LATERAL headwater.kind_of(t.typelem) AS e ON k.kind = 'array'
  WHERE (c.columns -> 'only' = 'null' OR c.columns -> 'only' @> to_jsonb(a.attnum) OR a.attnum = ANY (c.key))
    AND NOT c.columns -> 'left_out' @> to_jsonb(a.attnum) AND NOT c.columns -> 'personal' ? a.attnum::text
  ORDER BY a.attnum
$$;

-- Shapes ------------------------------------------------------------------------------------------

-- The columns that a capture tells of, as the catalog has them now. A publication leaves generated ones out.
CREATE FUNCTION headwater.described_now(relation oid, way text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_agg(jsonb_build_object('number', a.attnum, 'name', a.attname, 'type', a.atttypid::bigint, 'typmod', a.atttypmod, 'required', a.attnotnull) ORDER BY a.attnum)
  FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND (a.attgenerated = '' OR way = 'triggers' AND a.attgenerated <> 'v')
$$;

-- The columns as the slot tells them, which has names and types only. It may lag behind an ALTER or run
-- after several: a number is found by the catalog's name, else by the name of before; a column known to
-- neither is there between two ALTERs only, and gets a number of its own.
CREATE FUNCTION headwater.described_by(c headwater.captures, told jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_agg(jsonb_build_object('number', coalesce(n.number, b.number, 20000 + t.n), 'name', t.name, 'type', t.type, 'typmod', t.typmod,
           'required', NOT coalesce(t.empty, false) AND coalesce(n.required, b.required, false)) ORDER BY t.n)
  FROM ROWS FROM (jsonb_to_recordset(told) AS (name text, type bigint, typmod int, empty boolean)) WITH ORDINALITY AS t(name, type, typmod, empty, n)
  LEFT JOIN jsonb_to_recordset(headwater.described_now(c.relation, c.way)) AS n(number int, name text, required boolean) ON n.name = t.name
  LEFT JOIN jsonb_to_recordset(c.described) AS b(number int, name text, required boolean) ON b.name = t.name AND n.number IS NULL
$$;

-- The type that a column's text is cast to. One of a schema that headwater_owner may not enter stays text,
-- which is what its values become anyway.
CREATE FUNCTION headwater.castable(type oid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN k.kind = 'array' AND e.kind IS NOT NULL AND (b.typnamespace <> 'pg_catalog'::regnamespace OR b.typtype NOT IN ('b', 'r', 'm')) THEN 'text[]'
    WHEN k.kind = 'array' THEN format_type(b.typarray, -1)
    WHEN t.typnamespace <> 'pg_catalog'::regnamespace OR k.kind IN ('enum', 'other') THEN 'text'
    ELSE format_type(k.base, -1) END
  FROM headwater.kind_of(castable.type) AS k JOIN pg_type AS t ON t.oid = k.base
  LEFT JOIN LATERAL headwater.kind_of(t.typelem) AS e ON k.kind = 'array' LEFT JOIN pg_type AS b ON b.oid = e.base
$$;

-- Registers the types of the described shape and makes the function that reads rows of it: each
-- [transaction, moment, gone, missing, values]; values as Postgres prints them, in the described order.
CREATE FUNCTION headwater.make_replicated(INOUT c headwater.captures) LANGUAGE plpgsql AS $$
DECLARE
  columns text;
  fields text[];
  enums text;
BEGIN
  c.schema_version := headwater.register_capture(c);
  SELECT string_agg(format('(v.v -> 4 ->> %s)::%s AS %I', d.n - 1, headwater.castable(d.type), d.name), ', ' ORDER BY d.n),
         array_agg(k.field ORDER BY d.n) INTO columns, fields
  FROM ROWS FROM (jsonb_to_recordset(c.described) AS (number smallint, name text, type oid)) WITH ORDINALITY AS d(number, name, type, n)
  LEFT JOIN headwater.captured_columns(c) AS k ON k.number = d.number;
  -- The catalog may have renamed the tenant's column already.
  SELECT columns || format(', (v.v -> 4 ->> %s) AS %I', d.n - 1, a.attname) INTO STRICT columns
  FROM pg_attribute AS a, ROWS FROM (jsonb_to_recordset(c.described) AS (number smallint, name text)) WITH ORDINALITY AS d(number, name, n)
  WHERE a.attrelid = c.relation AND a.attnum = c.tenant_column AND d.number = a.attnum AND d.name <> a.attname
  UNION ALL SELECT columns LIMIT 1;
  SELECT string_agg(CASE k.kind WHEN 'enum' THEN format('coalesce(r.%I::text = ANY (%L), true)', k.name, k.labels)
           ELSE format('coalesce(array_remove(r.%I::text[], NULL) <@ %L, true)', k.name, k.labels) END, ' AND ') INTO enums
  FROM headwater.captured_columns(c) AS k WHERE k.labels IS NOT NULL;
  EXECUTE format($make$CREATE OR REPLACE FUNCTION headwater_captures.%I(given jsonb, OUT changes headwater.replicated_change[], OUT known boolean)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'iso_8601' SET extra_float_digits = 1 AS %L$make$,
    'rows_' || c.id, format($body$
BEGIN
  SELECT coalesce(array_agg((n.hw_ord, %s, n.tenant, n.stream, n.hw_gone, n.data, n.exact, n.hw_missing, n.hw_xid, n.hw_committed)::headwater.replicated_change
                            ORDER BY n.hw_ord), '{}'), coalesce(bool_and(n.hw_gone OR n.hw_known), true) INTO changes, known
  FROM (SELECT r.hw_ord, r.hw_gone, r.hw_missing, r.hw_xid, r.hw_committed, %s AS hw_known, %s
        FROM (SELECT v.n AS hw_ord, (v.v ->> 0)::bigint AS hw_xid, to_timestamp((v.v ->> 1)::float8) AS hw_committed, (v.v ->> 2)::boolean AS hw_gone,
                     CASE WHEN jsonb_typeof(v.v -> 3) = 'array' THEN ARRAY(SELECT f.f FROM jsonb_array_elements_text(v.v -> 3) AS m(m),
                       LATERAL (SELECT (%L::text[])[m.m::int + 1]) AS f(f) WHERE f.f IS NOT NULL) ELSE '{}' END AS hw_missing, %s
              FROM jsonb_array_elements(given) WITH ORDINALITY AS v(v, n) OFFSET 0) AS r) AS n;
END
$body$, c.id, coalesce(enums, 'true'), headwater.captured_row(c), fields, columns));
  EXECUTE format('REVOKE EXECUTE ON FUNCTION headwater_captures.%I(jsonb) FROM PUBLIC', 'rows_' || c.id);
  UPDATE headwater.captures AS k SET described = c.described, schema_version = CASE k.way WHEN 'triggers' THEN k.schema_version ELSE c.schema_version END,
    shape = CASE k.way WHEN 'triggers' THEN k.shape ELSE headwater.table_shape(c.relation) END,
    table_name = coalesce(headwater.qualified(c.relation), k.table_name) WHERE k.id = c.id;
END
$$;

-- The rows given, as changes. A new label of an enum alters no table: it is noticed by its first use.
CREATE FUNCTION headwater.read_changes(c headwater.captures, rows jsonb) RETURNS headwater.replicated_change[] LANGUAGE plpgsql AS $$
DECLARE
  found record;
BEGIN
  EXECUTE format('SELECT * FROM headwater_captures.%I($1)', 'rows_' || c.id) INTO found USING rows;
  IF NOT found.known THEN
    PERFORM headwater.make_replicated(c);
    EXECUTE format('SELECT * FROM headwater_captures.%I($1)', 'rows_' || c.id) INTO found USING rows;
  END IF;
  RETURN found.changes;
END
$$;

-- Telling -----------------------------------------------------------------------------------------

-- Appends what the changes come to. The log itself says what a row was: so the verb is right whatever a
-- transaction did, `before` needs no REPLICA IDENTITY FULL, and values that the slot leaves out because
-- they did not change are the log's own. Two changes of a row may be given, one after the other, except
-- where the first leaves values out. Planned without nested loops over the changes, of which there may be
-- 20,000; looking up a row's stream and its last event is one all the same. The caller holds the lock that makes it the only one to tell.
CREATE FUNCTION headwater.tell(changes headwater.replicated_change[], marked jsonb) RETURNS bigint
LANGUAGE sql SET enable_nestloop = off SET work_mem = '64MB' AS $$
  WITH given AS MATERIALIZED (SELECT g.*, k.name, k.schema_version FROM unnest(changes) AS g JOIN headwater.captures AS k ON k.id = g.capture),
  last AS MATERIALIZED (
    SELECT d.tenant, d.stream, e.data, e.metadata -> 'exact' AS exact
    FROM (SELECT DISTINCT g.tenant, g.stream, g.name FROM given AS g) AS d
    CROSS JOIN LATERAL (SELECT * FROM headwater.streams AS s WHERE s.tenant = d.tenant AND s.stream = d.stream OFFSET 0) AS s
    CROSS JOIN LATERAL (SELECT e.type, e.data - 'before' AS data, e.metadata FROM headwater.events AS e
      WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position
        AND e.type IN (d.name || '.inserted', d.name || '.updated', d.name || '.deleted') ORDER BY e.version DESC LIMIT 1) AS e
    WHERE e.type <> d.name || '.deleted'),
  chained AS (
    SELECT g.*, CASE WHEN row_number() OVER w = 1 THEN l.data ELSE lag(CASE WHEN NOT g.gone THEN g.data END) OVER w END AS was,
           CASE WHEN row_number() OVER w = 1 THEN l.exact ELSE lag(g.exact -> 'exact') OVER w END AS was_exact
    FROM given AS g LEFT JOIN last AS l ON l.tenant = g.tenant AND l.stream = g.stream
    WINDOW w AS (PARTITION BY g.tenant, g.stream ORDER BY g.ord)),
  filled AS (
    SELECT c.*, CASE WHEN c.missing = '{}' THEN c.data ELSE c.data || f.data END AS now,
           CASE WHEN c.gone THEN c.was_exact WHEN f.exact <> '{}' THEN coalesce(c.exact -> 'exact', '{}') || f.exact ELSE c.exact -> 'exact' END AS now_exact
    FROM chained AS c LEFT JOIN LATERAL (
      SELECT coalesce(jsonb_object_agg(m.m, c.was -> m.m) FILTER (WHERE c.was ? m.m), '{}') AS data,
             coalesce(jsonb_object_agg(m.m, c.was_exact -> m.m) FILTER (WHERE c.was_exact ? m.m), '{}') AS exact
      FROM unnest(c.missing) AS m(m)) AS f ON c.missing <> '{}'
    WHERE NOT (c.was IS NULL AND (c.gone OR c.missing <> '{}'))),
  told AS MATERIALIZED (
    SELECT f.ord, f.tenant, f.stream, f.schema_version, f.committed, f.name || CASE WHEN f.gone THEN '.deleted' WHEN f.was IS NULL THEN '.inserted' ELSE '.updated' END AS type,
           CASE WHEN f.gone THEN f.was WHEN f.was IS NULL THEN f.now ELSE f.now || jsonb_build_object('before', b.before) END AS data,
           marked || CASE WHEN f.xid IS NULL THEN '{}' ELSE jsonb_build_object('replicated', jsonb_build_object('slot', r.generation, 'xid', f.xid)) END
             || CASE WHEN f.now_exact IS NULL THEN '{}' ELSE jsonb_build_object('exact', f.now_exact) END AS metadata
    FROM filled AS f LEFT JOIN headwater.replication AS r ON true
    -- A column that is new since the row was last told of was null, as far as the log knows.
    LEFT JOIN LATERAL (SELECT coalesce(jsonb_object_agg(n.key, coalesce(f.was -> n.key, 'null')), '{}') AS before FROM jsonb_each(f.now) AS n
                       WHERE n.value <> coalesce(f.was -> n.key, 'null')) AS b ON NOT f.gone AND f.was IS NOT NULL
    WHERE f.gone OR f.was IS NULL OR b.before <> '{}' OR f.now_exact IS DISTINCT FROM f.was_exact),
  reserved AS (
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    SELECT t.tenant, t.stream, count(*), (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p)
    FROM told AS t GROUP BY t.tenant, t.stream ORDER BY t.tenant, t.stream
    ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + excluded.version RETURNING s.tenant, s.stream, s.version),
  inserted AS (
    INSERT INTO headwater.events (position, tenant, stream, version, type, schema_version, id, recorded_at, occurred_at, data, metadata)
    SELECT o.position, o.tenant, o.stream, o.version, o.type, o.schema_version, headwater.event_id(p.prefix, o.position), p.moment, o.committed, o.data, o.metadata
    FROM (SELECT nextval('headwater.position_seq') AS position, n.*
          FROM (SELECT t.*, v.version - count(*) OVER (PARTITION BY t.tenant, t.stream) + row_number() OVER (PARTITION BY t.tenant, t.stream ORDER BY t.ord) AS version
                FROM told AS t JOIN reserved AS v ON v.tenant = t.tenant AND v.stream = t.stream ORDER BY t.ord) AS n) AS o,
         (SELECT headwater.id_prefix(l.log_id, m.moment) AS prefix, m.moment FROM headwater.log AS l, (SELECT clock_timestamp() AS moment OFFSET 0) AS m OFFSET 0) AS p
    RETURNING 1)
  SELECT count(*) FROM inserted
$$;

-- The reader's moves --------------------------------------------------------------------------------

-- A transaction's number with its epoch: the slot tells its last 32 bits, of the recent past.
CREATE FUNCTION headwater.whole_xid(xid bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN w.w > n.n THEN w.w - 4294967296 ELSE w.w END
  FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS n) AS n, LATERAL (SELECT ((n.n >> 32) << 32) | xid AS w) AS w
$$;

-- Moves the position in the slot, from where the reader believes it is, or raises. First in each
-- transaction: its lock lets nobody else tell before this one has committed. Commits are flushed, since
-- the slot forgets what is confirmed.
CREATE FUNCTION headwater.move_replication(generation int, after pg_lsn, upto pg_lsn) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true);
  UPDATE headwater.replication AS r SET applied = upto, applied_at = clock_timestamp()
  WHERE r.generation = move_replication.generation AND r.applied = after AND r.state = 'live';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'The slot''s position is not where this reader believes it is.' USING ERRCODE = 'HW020';
  END IF;
END
$$;

-- Appends what rows of one captured table became, as the slot tells it: [transaction, moment, gone, missing, values].
CREATE FUNCTION headwater.apply_replication(capture int, rows jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on SET work_mem = '64MB' SET jit = off AS $$
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = apply_replication.capture AND k.state IN ('backfilling', 'live'));
  changes headwater.replicated_change[];
  told bigint;
BEGIN
  IF c.id IS NULL THEN
    RETURN 0;
  END IF;
  changes := headwater.read_changes(c, (SELECT jsonb_agg(jsonb_set(r.r, '{0}', to_jsonb(headwater.whole_xid((r.r ->> 0)::bigint))) ORDER BY r.n)
                                        FROM jsonb_array_elements(rows) WITH ORDINALITY AS r(r, n)));
  told := headwater.tell(changes, '{}');
  IF c.state = 'live' AND EXISTS (SELECT FROM unnest(changes) AS g WHERE g.missing <> '{}' AND NOT coalesce((
       SELECT e.type <> c.name || '.deleted' FROM headwater.events AS e WHERE e.tenant = g.tenant AND e.stream = g.stream
         AND e.type IN (c.name || '.inserted', c.name || '.updated', c.name || '.deleted') ORDER BY e.version DESC LIMIT 1), false)) THEN
    UPDATE headwater.captures AS k SET state = 'lost', detail = 'the slot told a part of a row that the log does not know' WHERE k.id = c.id;
  ELSIF c.state = 'backfilling' THEN
    INSERT INTO headwater.replication_marks (capture, stream, xid, reread)
    SELECT c.id, g.stream, g.xid, NOT g.gone FROM unnest(changes) AS g
    WHERE (g.gone OR g.missing <> '{}') AND NOT EXISTS (
      SELECT FROM headwater.events AS e WHERE e.tenant = g.tenant AND e.stream = g.stream AND e.metadata @> jsonb_build_object('replicated',
        jsonb_build_object('slot', (SELECT r.generation FROM headwater.replication AS r), 'xid', g.xid)));
  END IF;
  RETURN told;
END
$$;

CREATE FUNCTION headwater.truncate_replication(capture int, xid bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = truncate_replication.capture AND k.state IN ('backfilling', 'live'));
BEGIN
  IF c.id IS NOT NULL THEN
    INSERT INTO headwater.replication_marks (capture, stream, xid, reread) SELECT c.id, '', headwater.whole_xid(truncate_replication.xid), false WHERE c.state = 'backfilling';
    EXECUTE headwater.truncate_statement(c);
  END IF;
END
$$;

-- The slot describes a table: before its first change, and after each ALTER. Returns the capture, why it
-- stopped or NULL where it goes on, the places of the values that name a row, and those that may not be NULL.
CREATE FUNCTION headwater.describe_replication(relation oid, told jsonb, replica_identity text)
RETURNS TABLE (id int, why text, identity int[], required int[])
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.way = 'replication' AND k.relation = describe_replication.relation
                           AND k.state IN ('backfilling', 'live'));
  described jsonb := headwater.described_by(c, told);
  why text;
BEGIN
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  why := CASE
    WHEN EXISTS (SELECT FROM unnest(c.key) AS n WHERE NOT described @> jsonb_build_array(jsonb_build_object('number', n)))
      OR EXISTS (SELECT FROM pg_class WHERE oid = c.relation) AND headwater.primary_key_of(c.relation) IS DISTINCT FROM c.key THEN 'its primary key is gone or another'
    WHEN c.tenant_from = 'column' AND NOT described @> jsonb_build_array(jsonb_build_object('number', c.tenant_column)) THEN 'its tenant''s column is gone'
    WHEN replica_identity = 'n' OR replica_identity = 'i' OR replica_identity = 'd' AND c.tenant_from = 'column' AND NOT c.tenant_column = ANY (c.key)
      THEN 'its REPLICA IDENTITY does not tell the row''s key and tenant' END;
  IF why IS NOT NULL THEN
    UPDATE headwater.captures AS k SET state = 'broken', detail = why WHERE k.id = c.id;
  ELSIF described IS DISTINCT FROM c.described THEN
    c.described := described;
    PERFORM headwater.make_replicated(c);
  END IF;
  RETURN QUERY SELECT c.id, why, array_agg(d.n::int - 1 ORDER BY d.n) FILTER (WHERE d.number = ANY (c.key) OR d.number = c.tenant_column),
                      coalesce(array_agg(d.n::int - 1) FILTER (WHERE d.required), '{}')
  FROM ROWS FROM (jsonb_to_recordset(described) AS (number int, required boolean)) WITH ORDINALITY AS d(number, required, n);
END
$$;

-- The slot can no longer tell what happened: every capture by replication waits for a resync.
CREATE FUNCTION headwater.lose_replication(generation int, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE headwater.replication AS r SET state = 'lost', detail = why WHERE r.generation = lose_replication.generation AND r.state = 'live';
  IF FOUND THEN
    UPDATE headwater.captures AS k SET state = 'lost', detail = why WHERE k.way = 'replication' AND k.state IN ('backfilling', 'live');
  END IF;
END
$$;

-- The reader has asked for these publications, from its position on. What it is told of their tables from
-- here is all that commits behind that position, so a comparison may begin.
CREATE FUNCTION headwater.follow_replication(generation int, publications text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.captures AS k SET followed = follow_replication.generation
  WHERE k.way = 'replication' AND 'headwater_capture_' || k.id = ANY (publications) AND k.followed IS DISTINCT FROM follow_replication.generation
$$;

-- Someone waits for the reader to come so far.
CREATE FUNCTION headwater.want_replication(lsn pg_lsn) RETURNS pg_lsn
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.replication AS r SET wanted = greatest(r.wanted, lsn) RETURNING r.applied
$$;

-- A new slot begins, in place of none or of one that was lost.
CREATE FUNCTION headwater.begin_replication(slot text, generation int, lsn pg_lsn) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.replication AS r (generation, slot, applied) VALUES (begin_replication.generation, begin_replication.slot, lsn)
  ON CONFLICT (singleton) DO UPDATE SET generation = excluded.generation, slot = excluded.slot, state = 'live', detail = NULL, applied = excluded.applied,
    applied_at = clock_timestamp(), wanted = '0/0';
  -- A slot begins when all transactions of before have ended: it may tell of every table published by now.
  UPDATE headwater.captures AS k SET joined = lsn WHERE k.way = 'replication' AND k.state <> 'released'
$$;

-- Everything about the slot that has no table left.
CREATE FUNCTION headwater.end_replication() RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.replication AS r WHERE NOT EXISTS (SELECT FROM headwater.captures AS k WHERE k.way = 'replication' AND k.state <> 'released') RETURNING r.slot
$$;

-- A publication that tells nothing: a slot is read through at least one, whatever tables come and go.
CREATE FUNCTION headwater.publish_nothing() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'headwater_replication') THEN
    CREATE PUBLICATION headwater_replication;
  END IF;
END
$$;
CREATE FUNCTION headwater.unpublish_nothing() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DROP PUBLICATION IF EXISTS headwater_replication;
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT USAGE ON SEQUENCE headwater.replication_generation TO headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.move_replication, headwater.apply_replication, headwater.truncate_replication, headwater.describe_replication,
  headwater.lose_replication, headwater.follow_replication TO headwater_relay;
GRANT EXECUTE ON FUNCTION headwater.lose_replication, headwater.want_replication, headwater.begin_replication, headwater.end_replication, headwater.publish_nothing,
  headwater.unpublish_nothing TO headwater_operator;
RESET ROLE;
