-- Capturing a table, following its changes of shape, backfilling it, releasing it.
SET ROLE headwater_owner;

-- The table as given, if it can be captured at all.
CREATE FUNCTION headwater.capturable(table_name text) RETURNS pg_class LANGUAGE plpgsql AS $$
DECLARE
  found pg_class;
  parts text[];
BEGIN
  BEGIN
    parts := parse_ident(table_name);
  EXCEPTION WHEN invalid_parameter_value THEN
    parts := '{}';
  END;
  -- By the catalog and not by to_regclass: this runs as a role that may not enter the table's schema.
  SELECT c.* INTO found FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE c.relname = parts[cardinality(parts)] AND n.nspname = CASE cardinality(parts) WHEN 1 THEN 'public' WHEN 2 THEN parts[1] END;
  IF found.oid IS NULL THEN
    RAISE EXCEPTION 'There is no table %.', quote_literal(table_name)
      USING ERRCODE = 'HW032', HINT = 'Write schema.table, quoted as in SQL where it has capitals.';
  END IF;
  IF found.relkind NOT IN ('r', 'p') OR found.relpersistence <> 'p' OR found.relnamespace IN ('headwater'::regnamespace, 'pg_catalog'::regnamespace, 'headwater_views'::regnamespace) THEN
    RAISE EXCEPTION '% is not an ordinary, permanent table.', found.oid::regclass
      USING ERRCODE = 'HW030', HINT = 'Views, foreign, temporary and unlogged tables cannot be captured; capture the tables that they read.';
  END IF;
  IF EXISTS (SELECT FROM pg_inherits WHERE inhrelid = found.oid) OR found.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = found.oid) THEN
    RAISE EXCEPTION '% is a partition, or has tables that inherit from it.', found.oid::regclass
      USING ERRCODE = 'HW030', HINT = 'Capture the partitioned table itself. Tables that inherit without partitions cannot be captured.';
  END IF;
  RETURN found;
END
$$;

-- The numbers of the columns named. An unknown one is refused.
CREATE FUNCTION headwater.column_numbers(relation oid, names text[]) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
  unknown text;
BEGIN
  SELECT n.n INTO unknown FROM unnest(names) AS n(n)
  WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = n.n) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% has no column %.', relation::regclass, quote_literal(unknown) USING ERRCODE = 'HW030',
      HINT = 'It has ' || (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped) || '.';
  END IF;
  RETURN (SELECT coalesce(jsonb_agg(a.attnum), '[]') FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = ANY (names));
END
$$;

CREATE FUNCTION headwater.primary_key_of(relation oid) RETURNS smallint[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY(SELECT u.k FROM unnest(i.indkey) WITH ORDINALITY AS u(k, n) ORDER BY u.n)
  FROM pg_index AS i WHERE i.indrelid = relation AND i.indisprimary AND i.indimmediate
$$;

-- The table and, where it is partitioned, all its partitions: a write to a partition fires its own triggers.
CREATE FUNCTION headwater.capture_tables(relation oid) RETURNS SETOF oid LANGUAGE sql STABLE AS $$
  SELECT relation UNION SELECT t.relid::oid FROM pg_partition_tree(relation) AS t
$$;

-- The name of a capture's events: given, or the table's. Types and streams of that name must be free.
CREATE FUNCTION headwater.capture_name(t pg_class, given text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  schema_ text := (SELECT n.nspname FROM pg_namespace AS n WHERE n.oid = t.relnamespace);
  name_ text := coalesce(given, CASE schema_ WHEN 'public' THEN '' ELSE schema_ || '.' END || t.relname);
  category text := replace(name_, '.', '-');
  clash text;
BEGIN
  IF name_ !~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){0,2}$' OR length(name_) > 50 THEN
    RAISE EXCEPTION 'Events cannot be named after %.', quote_literal(name_)
      USING ERRCODE = 'HW030', HINT = 'Pass another name (--as): one to three lower-case words with dots, at most 50 characters.';
  END IF;
  SELECT k.type INTO clash FROM headwater.event_types AS k
  WHERE split_part(k.stream_pattern, '/', 1) = category ORDER BY 1 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'Streams named % are taken, by the event type %.', quote_literal(category || '/'), quote_literal(clash)
      USING ERRCODE = 'HW030', HINT = 'Pass another name (--as). A table captured again after a release needs one too: its old streams missed what changed in between.';
  END IF;
  RETURN name_;
END
$$;

-- Reads the tenant's source from the options into the capture.
CREATE FUNCTION headwater.capture_tenant(INOUT c headwater.captures, options jsonb) LANGUAGE plpgsql AS $$
DECLARE
  sources text[] := ARRAY(SELECT k FROM unnest(ARRAY['tenant', 'tenant_column', 'session_tenant']) AS k
                          WHERE jsonb_typeof(options -> k) = 'string' OR options -> k = 'true');
BEGIN
  IF cardinality(sources) <> 1 THEN
    RAISE EXCEPTION 'Exactly one source of the tenant must be named, not %.', cardinality(sources)
      USING ERRCODE = 'HW030', HINT = 'Pass one of --tenant NAME, --tenant-column COLUMN and --session-tenant.';
  END IF;
  c.tenant_from := CASE sources[1] WHEN 'tenant' THEN 'fixed' WHEN 'tenant_column' THEN 'column' ELSE 'session' END;
  IF c.tenant_from = 'fixed' THEN
    c.fixed_tenant := options ->> 'tenant';
    IF c.fixed_tenant <> headwater.captured_tenant(c.fixed_tenant) THEN
      RAISE EXCEPTION 'The tenant % is malformed.', quote_literal(left(c.fixed_tenant, 100))
        USING ERRCODE = 'HW007', HINT = 'Use up to 100 letters, digits, and _ . : -, a letter or digit first.';
    END IF;
  ELSIF c.tenant_from = 'column' THEN
    c.tenant_column := headwater.column_numbers(c.relation, ARRAY[options ->> 'tenant_column']) ->> 0;
    IF NOT (SELECT a.attnotnull FROM pg_attribute AS a WHERE a.attrelid = c.relation AND a.attnum = c.tenant_column) THEN
      RAISE EXCEPTION 'The column % may be NULL, and every event has a tenant.', quote_literal(options ->> 'tenant_column')
        USING ERRCODE = 'HW030', HINT = 'ALTER TABLE ... ALTER COLUMN ... SET NOT NULL first, or pass --tenant.';
    END IF;
  ELSIF options -> 'backfill' <> 'false' THEN
    RAISE EXCEPTION 'Rows that exist already have no session whose tenant they could take.'
      USING ERRCODE = 'HW030', HINT = 'Pass --no-backfill, or --tenant-column instead of --session-tenant.';
  END IF;
END
$$;

-- Reads which columns are captured from the options into the capture.
CREATE FUNCTION headwater.capture_columns(INOUT c headwater.captures, options jsonb) LANGUAGE plpgsql AS $$
DECLARE
  only_ text[] := (SELECT array_agg(v) FROM jsonb_array_elements_text(nullif(options -> 'only', 'null')) AS v);
  left_out text[] := ARRAY(SELECT jsonb_array_elements_text(options -> 'left_out'));
  clash text;
BEGIN
  c.key := headwater.primary_key_of(c.relation);
  IF c.key IS NULL THEN
    RAISE EXCEPTION '% has no primary key that is checked at once.', c.relation::regclass
      USING ERRCODE = 'HW030', HINT = 'ALTER TABLE ... ADD PRIMARY KEY, not DEFERRABLE: it names each row''s stream.';
  END IF;
  c.columns := jsonb_build_object('only', CASE WHEN only_ IS NULL THEN 'null' ELSE headwater.column_numbers(c.relation, only_) END,
    'left_out', headwater.column_numbers(c.relation, left_out),
    'renamed', (SELECT coalesce(jsonb_object_agg(headwater.column_numbers(c.relation, ARRAY[r.key]) ->> 0, r.value), '{}') FROM jsonb_each_text(options -> 'renamed') AS r),
    'personal', (SELECT coalesce(jsonb_object_agg(headwater.column_numbers(c.relation, ARRAY[r.key, r.value]) ->> 0, r.value), '{}') FROM jsonb_each_text(options -> 'personal') AS r));
  IF EXISTS (SELECT FROM unnest(c.key) AS k WHERE c.columns -> 'left_out' @> to_jsonb(k) OR c.columns -> 'personal' ? k::text) THEN
    RAISE EXCEPTION 'A column of the primary key cannot be left out, nor be personal.'
      USING ERRCODE = 'HW030', HINT = 'It names the row''s stream, which is never sealed. Give the table another key.';
  END IF;
  SELECT f.field INTO clash FROM (SELECT k.field FROM headwater.captured_columns(c) AS k UNION ALL SELECT 'before'
    UNION ALL SELECT 'key' WHERE headwater.natural_key(c) IS NULL) AS f GROUP BY 1 HAVING count(*) > 1;
  IF FOUND THEN
    RAISE EXCEPTION 'Two fields would be called %.', quote_literal(clash)
      USING ERRCODE = 'HW030', HINT = 'Rename the column in the events: --rename ' || clash || '=other. `before` is in every update, `key` in events of tables whose key is no single whole number or uuid.';
  END IF;
END
$$;

-- Writes the capture down and makes its functions; the triggers follow, by the table's owner.
CREATE FUNCTION headwater.begin_capture(table_name text, options jsonb) RETURNS headwater.captures
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_class := headwater.capturable(table_name);
  known text;
  c headwater.captures;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.captures', 0));
  SELECT k.name INTO known FROM headwater.captures AS k WHERE k.relation = t.oid AND k.state <> 'released';
  IF FOUND THEN
    RAISE EXCEPTION '% is captured already, as %.', t.oid::regclass, quote_literal(known)
      USING ERRCODE = 'HW031', HINT = 'headwater captures shows it; headwater release takes it out.';
  END IF;
  c.name := headwater.capture_name(t, options ->> 'name');
  c.relation := t.oid;
  c := headwater.capture_tenant(c, options);
  c := headwater.capture_columns(c, options);
  INSERT INTO headwater.captures (name, relation, table_name, tenant_from, fixed_tenant, tenant_column, key, columns, state)
  VALUES (c.name, t.oid, headwater.qualified(t.oid), c.tenant_from, c.fixed_tenant, c.tenant_column, c.key, c.columns,
          CASE WHEN options -> 'backfill' = 'false' THEN 'live' ELSE 'backfilling' END)
  RETURNING * INTO c;
  c := headwater.make_capture(c);
  EXECUTE format('GRANT EXECUTE ON FUNCTION headwater_captures.%I(), headwater_captures.%I(anyarray) TO %s', 'changes_' || c.id, 'existing_' || c.id,
    (SELECT string_agg(DISTINCT k.relowner::regrole::text, ', ') FROM pg_class AS k WHERE k.oid IN (SELECT headwater.capture_tables(c.relation))));
  RETURN c;
END
$$;

CREATE FUNCTION headwater.qualified(relation oid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;

-- Acts as the owner of a table for the statements that follow, as far as this login may.
CREATE FUNCTION headwater.become_owner(relation oid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  owner_ name := (SELECT r.rolname FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner WHERE c.oid = become_owner.relation);
BEGIN
  IF NOT pg_has_role(session_user, owner_, 'MEMBER') THEN
    RAISE EXCEPTION 'The login % may not act as %, the owner of %.', session_user, owner_, relation::regclass
      USING ERRCODE = 'HW030', HINT = format('GRANT %I TO %I, for as long as tables are captured, backfilled or released.', owner_, session_user);
  END IF;
  EXECUTE format('SET LOCAL ROLE %I', owner_);
END
$$;

-- Captures a table, in the caller's transaction: all of it or nothing. Triggers are named to fire
-- before others; creating them waits for open writers of the table, so set lock_timeout.
CREATE FUNCTION headwater.capture_table(table_name text, options jsonb DEFAULT '{}') RETURNS TABLE (id int, name text, state text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  before text := current_setting('role');
  c headwater.captures := headwater.begin_capture(capture_table.table_name,
    '{"left_out": [], "renamed": {}, "personal": {}, "only": null, "backfill": true}' || options);
  wanted record;
BEGIN
  FOR wanted IN SELECT * FROM headwater.capture_triggers(c) LOOP
    PERFORM headwater.become_owner(wanted.relation);
    EXECUTE wanted.statement;
    EXECUTE format('SET LOCAL ROLE %I', before);
  END LOOP;
  RETURN QUERY SELECT c.id, c.name, c.state;
END
$$;

CREATE FUNCTION headwater.capture_triggers(c headwater.captures) RETURNS TABLE (relation oid, statement text) LANGUAGE sql STABLE AS $$
  SELECT t.relation, format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION headwater_captures.%I()',
           '00_headwater_' || v.event, v.event, t.relation::regclass, v.tables, 'changes_' || c.id)
  FROM headwater.capture_tables(c.relation) AS t(relation), (VALUES ('insert', 'REFERENCING NEW TABLE AS headwater_new'),
    ('update', 'REFERENCING OLD TABLE AS headwater_old NEW TABLE AS headwater_new'),
    ('delete', 'REFERENCING OLD TABLE AS headwater_old'), ('truncate', '')) AS v(event, tables)
$$;

-- Takes a capture out: its triggers and functions go, the events stay.
CREATE FUNCTION headwater.release_table(capture text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before text := current_setting('role');
  c headwater.captures := headwater.find_capture(capture);
  g record;
BEGIN
  FOR g IN SELECT t.tgrelid, t.tgname FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
           WHERE p.pronamespace = 'headwater_captures'::regnamespace AND p.proname = 'changes_' || c.id AND t.tgparentid = 0 LOOP
    PERFORM headwater.become_owner(g.tgrelid);
    EXECUTE format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass);
    EXECUTE format('SET LOCAL ROLE %I', before);
  END LOOP;
  PERFORM headwater.end_capture(c.id);
  RETURN c.name;
END
$$;

CREATE FUNCTION headwater.find_capture(capture text) RETURNS headwater.captures LANGUAGE plpgsql STABLE AS $$
DECLARE
  c headwater.captures;
BEGIN
  SELECT * INTO c FROM headwater.captures AS k
  WHERE k.state <> 'released' AND (k.name = capture OR k.table_name = capture OR headwater.qualified(k.relation) = capture
        OR headwater.qualified(k.relation) = 'public.' || capture) ORDER BY k.name = capture DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'No capture or captured table is called %.', quote_literal(capture) USING ERRCODE = 'HW032', HINT = 'headwater captures lists them.';
  END IF;
  RETURN c;
END
$$;

CREATE FUNCTION headwater.end_capture(id int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('DROP FUNCTION IF EXISTS headwater_captures.%I(), headwater_captures.%I(anyarray)', 'changes_' || id, 'existing_' || id);
  UPDATE headwater.captures AS k SET state = 'released', released_at = clock_timestamp() WHERE k.id = end_capture.id;
END
$$;

-- Called by a trigger that finds its table altered: follows the new shape within the writer's
-- transaction, and returns the statement that appends what the writer changed.
CREATE FUNCTION headwater.reshape_capture(id int, relation oid, operation text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  c headwater.captures;
BEGIN
  SELECT * INTO c FROM headwater.captures AS k WHERE k.id = reshape_capture.id FOR UPDATE;
  IF NOT FOUND OR c.state IN ('released', 'broken') THEN
    RETURN 'SELECT';
  END IF;
  -- A dump gives a table another oid when it is restored.
  IF NOT EXISTS (SELECT FROM pg_class WHERE oid = c.relation) AND headwater.qualified(reshape_capture.relation) = c.table_name THEN
    UPDATE headwater.captures AS k SET relation = reshape_capture.relation WHERE k.id = c.id RETURNING * INTO c;
  END IF;
  IF headwater.primary_key_of(c.relation) IS DISTINCT FROM c.key OR c.tenant_from = 'column' AND NOT EXISTS (
       SELECT FROM pg_attribute AS a WHERE a.attrelid = c.relation AND a.attnum = c.tenant_column AND NOT a.attisdropped) THEN
    PERFORM headwater.break_capture(c, 'its primary key or its tenant''s column is gone');
    RETURN 'SELECT';
  END IF;
  c := headwater.make_capture(c);
  UPDATE headwater.captures AS k SET table_name = headwater.qualified(c.relation) WHERE k.id = c.id;
  RETURN headwater.capture_statement(c, operation);
END
$$;

-- Stops a capture whose table can no longer be told of, so that its writers go on; doctor names it.
CREATE FUNCTION headwater.break_capture(c headwater.captures, why text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('CREATE OR REPLACE FUNCTION headwater_captures.%I() RETURNS trigger LANGUAGE plpgsql AS ''BEGIN RETURN NULL; END''', 'changes_' || c.id);
  UPDATE headwater.captures AS k SET state = 'broken', detail = why WHERE k.id = c.id;
END
$$;

-- TRUNCATE tells no rows: those that the log holds as living are deleted in the log, as last seen.
CREATE FUNCTION headwater.capture_truncate(id int, relation oid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on SET work_mem = '64MB' AS $$
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = capture_truncate.id AND k.state <> 'broken');
BEGIN
  IF c.id IS NULL THEN
    RETURN;
  END IF;
  IF relation <> c.relation AND EXISTS (SELECT FROM pg_class WHERE oid = c.relation) THEN
    RAISE EXCEPTION 'TRUNCATE of % alone cannot be captured: it is a partition of %.', relation::regclass, c.relation::regclass
      USING ERRCODE = 'HW030', HINT = 'DELETE its rows, or TRUNCATE the partitioned table.';
  END IF;
  EXECUTE headwater.truncate_statement(c);
END
$$;

CREATE FUNCTION headwater.truncate_statement(c headwater.captures) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format($sql$WITH living AS MATERIALIZED (
    SELECT s.tenant, s.stream, e.schema_version, e.data - 'before' AS data, e.metadata - 'backfill' AS metadata
    FROM headwater.streams AS s CROSS JOIN LATERAL (
      SELECT e.type, e.schema_version, e.data, e.metadata FROM headwater.events AS e
      WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position AND e.type IN (%L, %L, %L)
      ORDER BY e.version DESC LIMIT 1) AS e
    WHERE starts_with(s.stream, %L) AND e.type <> %3$L), reserved AS (
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    SELECT l.tenant, l.stream, 1, 0 FROM living AS l ORDER BY l.tenant, l.stream
    ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + 1 RETURNING s.tenant, s.stream, s.version)
  INSERT INTO headwater.events (position, tenant, stream, version, type, schema_version, id, recorded_at, data, metadata)
  SELECT o.position, o.tenant, o.stream, o.version, %3$L, o.schema_version, headwater.event_id(headwater.id_prefix(%5$L, clock_timestamp()), o.position),
         clock_timestamp(), o.data, o.metadata || '{"truncate": true}'
  FROM (SELECT nextval('headwater.position_seq') AS position, n.*
        FROM (SELECT l.*, v.version FROM living AS l JOIN reserved AS v USING (tenant, stream) ORDER BY l.tenant, l.stream) AS n) AS o$sql$,
    c.name || '.inserted', c.name || '.updated', c.name || '.deleted', replace(c.name, '.', '-') || '/', g.log_id)
  FROM headwater.log AS g
$$;

-- One step of a backfill, in the caller's transaction: up to `max_rows` rows in the key's order, after
-- those of the step before. Returns the rows seen, those appended, and whether there may be more.
CREATE FUNCTION headwater.backfill(id int, max_rows int DEFAULT 2000, OUT seen bigint, OUT appended bigint, OUT more boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off AS $$
DECLARE
  before text := current_setting('role');
  table_ oid := (SELECT k.relation FROM headwater.captures AS k WHERE k.id = backfill.id);
  step text;
  last text[];
BEGIN
  PERFORM headwater.become_owner(table_);
  EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', table_::regclass);  -- its shape stays until the commit
  EXECUTE format('SET LOCAL ROLE %I', before);
  step := headwater.begin_backfill(id, max_rows);
  IF step IS NULL THEN
    SELECT 0, 0, false INTO seen, appended, more;
    RETURN;
  END IF;
  PERFORM headwater.become_owner(table_);
  EXECUTE step INTO seen, appended, last;
  EXECUTE format('SET LOCAL ROLE %I', before);
  more := seen = max_rows;
  PERFORM headwater.end_backfill(id, last, coalesce(appended, 0), more);
END
$$;

-- The statement of the next step, for the table's owner to run; NULL when the backfill is over.
CREATE FUNCTION headwater.begin_backfill(id int, max_rows int) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  c headwater.captures;
  key record;
BEGIN
  SELECT * INTO c FROM headwater.captures AS k WHERE k.id = begin_backfill.id FOR UPDATE;
  IF c.state = 'backfilling' AND c.shape <> headwater.table_shape(c.relation) THEN
    PERFORM headwater.reshape_capture(c.id, c.relation, 'INSERT');
    SELECT * INTO c FROM headwater.captures AS k WHERE k.id = begin_backfill.id;
  END IF;
  IF c.state IS DISTINCT FROM 'backfilling' THEN
    RETURN NULL;
  END IF;
  SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY o.n) AS columns, string_agg(format('t.%I::text', a.attname), ', ' ORDER BY o.n) AS texts,
         string_agg(format('%L::%s', c.backfilled_upto[o.n], format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY o.n) AS values INTO key
  FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = o.number;
  RETURN format('SELECT b.n, headwater_captures.%I(b.rows), b.last FROM (SELECT count(*) AS n, array_agg(r.t ORDER BY r.n) AS rows, (array_agg(r.k::text ORDER BY r.n DESC))[1]::text[] AS last
                 FROM (SELECT t, ARRAY[%s] AS k, row_number() OVER (ORDER BY %s) AS n FROM %s AS t%s ORDER BY %3$s LIMIT %6$s) AS r) AS b',
    'existing_' || c.id, key.texts, key.columns, c.relation::regclass,
    CASE WHEN c.backfilled_upto IS NULL THEN '' ELSE format(' WHERE (%s) > (%s)', key.columns, key.values) END, max_rows);
END
$$;

CREATE FUNCTION headwater.end_backfill(id int, last text[], appended bigint, more boolean) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.captures AS k
     SET backfilled_upto = coalesce(last, k.backfilled_upto), backfilled_rows = k.backfilled_rows + appended,
         state = CASE WHEN more THEN k.state ELSE 'live' END
   WHERE k.id = end_backfill.id AND k.state = 'backfilling'
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.capture_table, headwater.release_table, headwater.backfill, headwater.begin_capture, headwater.end_capture,
  headwater.begin_backfill, headwater.end_backfill, headwater.find_capture, headwater.qualified, headwater.capture_tables, headwater.table_shape, headwater.become_owner,
  headwater.capture_triggers TO headwater_operator;
RESET ROLE;
