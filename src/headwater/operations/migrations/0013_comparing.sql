-- Capturing by either way, capturing again, and bringing the log level with a table by comparing them.
SET ROLE headwater_owner;

-- A column's value as jsonb_build_object takes it, over the SQL expression `at`; `within` brings it
-- within what its schema allows.
CREATE OR REPLACE FUNCTION headwater.value_of(kind text, element text, at text, large int, within boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN kind = 'array' THEN format(CASE WHEN large IS NULL THEN '' ELSE 'CASE WHEN pg_column_size(%1$s) > %2$s THEN ''[]'' ELSE ' END
      || 'CASE WHEN %1$s IS NOT NULL THEN (SELECT coalesce(jsonb_agg(%3$s), ''[]'') FROM unnest(%4$s) AS u(x)) END' || CASE WHEN large IS NULL THEN '' ELSE ' END' END,
      at, large, headwater.value_of(element, NULL, 'u.x', NULL, within),
      -- Elements of a row type would come apart into their columns.
      at || CASE WHEN element = 'other' THEN '::text[]' ELSE '' END)
    WHEN within AND kind = 'float' THEN format('CASE WHEN abs(%1$s::float8) <= 1.7e308 THEN %1$s END', at)
    WHEN within AND kind = 'moment' THEN format('CASE WHEN %1$s IS NOT NULL THEN least(greatest(%1$s, ''0001-01-01T00:00:00Z''::timestamptz), ''9999-12-31T23:59:59.999999Z''::timestamptz) END', at)
    WHEN within AND kind = 'date' THEN format('CASE WHEN %1$s IS NOT NULL THEN least(greatest(%1$s, ''0001-01-01''::date), ''9999-12-31''::date) END', at)
    WHEN large IS NOT NULL THEN format(CASE kind
        WHEN 'json' THEN 'CASE WHEN pg_column_size(%1$s) > %2$s THEN to_jsonb(headwater.digest_of(%1$s::text)) ELSE %3$s END'
        WHEN 'json_text' THEN 'CASE WHEN octet_length(%1$s::text) > %2$s THEN to_jsonb(headwater.digest_of(%1$s::text)) ELSE %3$s END'
        WHEN 'bytes' THEN 'CASE WHEN octet_length(%1$s) > %2$s * 3 / 4 THEN ''sha256:'' || encode(sha256(%1$s), ''hex'') ELSE %3$s END'
        ELSE 'CASE WHEN octet_length(%1$s::text) > %2$s THEN headwater.digest_of(%1$s::text) ELSE %3$s END' END,
      at, large, headwater.value_of(kind, NULL, at, NULL, within))
    WHEN kind = 'decimal' THEN at || '::numeric::text'
    WHEN kind IN ('enum', 'text', 'other') THEN at || '::text'
    WHEN kind = 'json' THEN at || '::jsonb'
    WHEN kind = 'json_text' THEN format('headwater.json_of(%s)', at)
    WHEN kind = 'bytes' THEN format('translate(encode(%s, ''base64''), E''\n'', '''')', at)
    ELSE at END
$$;

-- Columns that hold the tenant of a row that is gone: by replication the slot must tell them.
CREATE FUNCTION headwater.check_replicable(c headwater.captures) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  identity "char" := (SELECT t.relreplident FROM pg_class AS t WHERE t.oid = c.relation);
BEGIN
  IF c.tenant_from = 'session' THEN
    RAISE EXCEPTION 'The slot does not tell which session wrote a row, nor its tenant.'
      USING ERRCODE = 'HW030', HINT = 'Pass --tenant or --tenant-column.';
  ELSIF identity NOT IN ('d', 'f') OR identity = 'd' AND c.tenant_from = 'column' AND NOT c.tenant_column = ANY (c.key) THEN
    RAISE EXCEPTION 'The REPLICA IDENTITY of % does not tell the key and the tenant of a row that is gone.', c.relation::regclass
      USING ERRCODE = 'HW030', HINT = format('ALTER TABLE %s REPLICA IDENTITY %s.', c.relation::regclass, CASE WHEN c.tenant_from = 'column' THEN 'FULL' ELSE 'DEFAULT' END);
  END IF;
END
$$;

-- The name of a capture's events: given, or the table's. Types and streams of that name must be free.
CREATE OR REPLACE FUNCTION headwater.capture_name(t pg_class, given text) RETURNS text LANGUAGE plpgsql AS $$
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
      USING ERRCODE = 'HW030', HINT = 'Pass another name (--as); or --again, to go on with the streams of a capture that was released.';
  END IF;
  RETURN name_;
END
$$;

-- A name whose streams are there already: free to a capture again that tells of rows as the last one did.
CREATE FUNCTION headwater.capture_again(c headwater.captures) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  was headwater.captures;
BEGIN
  SELECT * INTO was FROM headwater.captures AS k WHERE k.name = c.name AND k.state = 'released' ORDER BY k.released_at DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'No table was captured as % before.', quote_literal(c.name) USING ERRCODE = 'HW030', HINT = 'Leave out --again.';
  END IF;
  IF was.tenant_from <> c.tenant_from OR was.fixed_tenant IS DISTINCT FROM c.fixed_tenant THEN
    RAISE EXCEPTION 'The rows of % had their tenants from elsewhere.', quote_literal(c.name)
      USING ERRCODE = 'HW030', HINT = 'Name the tenant as before, or pass another name (--as).';
  END IF;
  IF NOT EXISTS (SELECT FROM headwater.event_types AS t WHERE t.type = c.name || '.inserted'
                 AND t.stream_pattern = format('%s/{%s}', replace(c.name, '.', '-'), coalesce(headwater.natural_key(c), 'key')))
     OR EXISTS (SELECT FROM unnest(c.key) AS n JOIN headwater.captured_columns(c) AS k ON k.number = n
                WHERE NOT (SELECT t.schema -> 'properties' ? k.field FROM headwater.event_types AS t WHERE t.type = c.name || '.inserted' ORDER BY t.schema_version DESC LIMIT 1)) THEN
    RAISE EXCEPTION 'The rows of % were named by another key.', quote_literal(c.name) USING ERRCODE = 'HW030', HINT = 'Pass another name (--as): its streams begin anew.';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION headwater.begin_capture(table_name text, options jsonb) RETURNS headwater.captures
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  t pg_class := headwater.capturable(table_name);
  again boolean := coalesce(options -> 'again' = 'true', false);
  known text;
  c headwater.captures;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.captures', 0));
  SELECT k.name INTO known FROM headwater.captures AS k WHERE k.relation = t.oid AND k.state <> 'released';
  IF FOUND THEN
    RAISE EXCEPTION '% is captured already, as %.', t.oid::regclass, quote_literal(known)
      USING ERRCODE = 'HW031', HINT = 'headwater captures shows it; headwater release takes it out.';
  END IF;
  c.name := CASE WHEN again THEN coalesce(options ->> 'name', CASE (SELECT n.nspname FROM pg_namespace AS n WHERE n.oid = t.relnamespace)
    WHEN 'public' THEN '' ELSE (SELECT n.nspname FROM pg_namespace AS n WHERE n.oid = t.relnamespace) || '.' END || t.relname)
    ELSE headwater.capture_name(t, options ->> 'name') END;
  c.relation := t.oid;
  c.way := coalesce(options ->> 'way', 'triggers');
  c.described := headwater.described_now(t.oid, c.way);
  c := headwater.capture_tenant(c, options);
  c := headwater.capture_columns(c, options);
  IF c.way = 'replication' THEN
    PERFORM headwater.check_replicable(c);
  END IF;
  IF again THEN
    PERFORM headwater.capture_again(c);
  END IF;
  IF (again OR c.way = 'replication') AND options -> 'backfill' = 'false' THEN
    RAISE EXCEPTION 'The rows that exist are needed: the log must know a row before it can tell what changed in it.'
      USING ERRCODE = 'HW030', HINT = 'Leave out --no-backfill.';
  END IF;
  INSERT INTO headwater.captures (name, relation, table_name, tenant_from, fixed_tenant, tenant_column, key, columns, state, way, described, comparing)
  VALUES (c.name, t.oid, headwater.qualified(t.oid), c.tenant_from, c.fixed_tenant, c.tenant_column, c.key, c.columns,
          CASE WHEN options -> 'backfill' = 'false' THEN 'live' ELSE 'backfilling' END, c.way,
          CASE WHEN again OR c.way = 'replication' THEN c.described END, again)
  RETURNING * INTO c;
  IF again OR c.way = 'replication' THEN
    c := headwater.make_replicated(c);
  END IF;
  IF c.way = 'triggers' THEN
    c := headwater.make_capture(c);
    EXECUTE format('GRANT EXECUTE ON FUNCTION headwater_captures.%I(), headwater_captures.%I(anyarray) TO %s', 'changes_' || c.id, 'existing_' || c.id,
      (SELECT string_agg(DISTINCT k.relowner::regrole::text, ', ') FROM pg_class AS k WHERE k.oid IN (SELECT headwater.capture_tables(c.relation))));
  END IF;
  RETURN c;
END
$$;

CREATE OR REPLACE FUNCTION headwater.capture_table(table_name text, options jsonb DEFAULT '{}') RETURNS TABLE (id int, name text, state text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  before text := current_setting('role');
  c headwater.captures := headwater.begin_capture(capture_table.table_name,
    '{"left_out": [], "renamed": {}, "personal": {}, "only": null, "backfill": true}' || options);
  wanted record;
BEGIN
  IF c.way = 'replication' THEN
    PERFORM headwater.become_owner(c.relation);
    IF NOT has_database_privilege(current_database(), 'CREATE') THEN
      RAISE EXCEPTION 'The owner of %, %, may not make a publication.', c.relation::regclass, current_user
        USING ERRCODE = 'HW030', HINT = format('GRANT CREATE ON DATABASE %I TO %I, for as long as tables are captured by replication.', current_database(), current_user);
    END IF;
    EXECUTE format('CREATE PUBLICATION %I FOR TABLE %s WITH (publish_via_partition_root = true)', 'headwater_capture_' || c.id, c.relation::regclass);
    EXECUTE format('SET LOCAL ROLE %I', before);
  ELSE
    FOR wanted IN SELECT * FROM headwater.capture_triggers(c) LOOP
      PERFORM headwater.become_owner(wanted.relation);
      EXECUTE wanted.statement;
      EXECUTE format('SET LOCAL ROLE %I', before);
    END LOOP;
  END IF;
  RETURN QUERY SELECT c.id, c.name, c.state;
END
$$;

CREATE OR REPLACE FUNCTION headwater.release_table(capture text) RETURNS text
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
  FOR g IN SELECT p.pubname, r.rolname FROM pg_publication AS p JOIN pg_roles AS r ON r.oid = p.pubowner WHERE p.pubname = 'headwater_capture_' || c.id LOOP
    IF NOT pg_has_role(session_user, g.rolname, 'MEMBER') THEN
      RAISE EXCEPTION 'The login % may not act as %, the owner of the publication %.', session_user, g.rolname, g.pubname
        USING ERRCODE = 'HW030', HINT = format('GRANT %I TO %I, for as long as tables are captured or released.', g.rolname, session_user);
    END IF;
    EXECUTE format('SET LOCAL ROLE %I', g.rolname);
    EXECUTE format('DROP PUBLICATION %I', g.pubname);
    EXECUTE format('SET LOCAL ROLE %I', before);
  END LOOP;
  PERFORM headwater.end_capture(c.id);
  RETURN c.name;
END
$$;

CREATE OR REPLACE FUNCTION headwater.end_capture(id int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('DROP FUNCTION IF EXISTS headwater_captures.%I(), headwater_captures.%I(anyarray), headwater_captures.%I(jsonb)',
    'changes_' || id, 'existing_' || id, 'rows_' || id);
  DELETE FROM headwater.replication_marks AS m WHERE m.capture = end_capture.id;
  UPDATE headwater.captures AS k SET state = 'released', released_at = clock_timestamp() WHERE k.id = end_capture.id;
END
$$;

-- The statement of the next step, for the table's owner to run; NULL when the backfill is over.
-- The table's alias is no name of a column: up to here a table with a column `t` could not be backfilled.
CREATE OR REPLACE FUNCTION headwater.begin_backfill(id int, max_rows int) RETURNS text
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
  SELECT string_agg(format('hw_t.%I', a.attname), ', ' ORDER BY o.n) AS columns, string_agg(format('hw_t.%I::text', a.attname), ', ' ORDER BY o.n) AS texts,
         string_agg(format('%L::%s', c.backfilled_upto[o.n], format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY o.n) AS values INTO key
  FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = o.number;
  RETURN format('SELECT b.n, headwater_captures.%I(b.rows), b.last FROM (SELECT count(*) AS n, array_agg(r.hw_t ORDER BY r.n) AS rows, (array_agg(r.k::text ORDER BY r.n DESC))[1]::text[] AS last
                 FROM (SELECT hw_t, ARRAY[%s] AS k, row_number() OVER (ORDER BY %s) AS n FROM %s AS hw_t%s ORDER BY %3$s LIMIT %6$s) AS r) AS b',
    'existing_' || c.id, key.texts, key.columns, c.relation::regclass,
    CASE WHEN c.backfilled_upto IS NULL THEN '' ELSE format(' WHERE (%s) > (%s)', key.columns, key.values) END, max_rows);
END
$$;

-- Comparing ---------------------------------------------------------------------------------------
-- A step reads rows of the table in one snapshot S, and appends what the log must be told in a later
-- transaction, where it knows that the log has not moved past S for those rows:
--   by triggers, table and log commit together. A stream whose version is still that of S, with its lock
--   held, has had no change since; the row of S is the row of now, or of a writer who waits for the lock.
--   by replication the log follows. The step waits until the reader has come to an LSN taken after S, so
--   that all S sees is in the log. What is in the log and S does not see, the last event of the stream
--   tells by its transaction: then a newer row has been told already, and the step leaves it alone. Of
--   two transactions that changed one row the later began its change when the first could be seen: so
--   the last event stands for all before it. Changes that told nothing leave marks instead.

-- Opens a comparison: the log is compared with the whole table, from its beginning. Waits for writers of
-- the table, so that whatever committed before can be seen by every later snapshot, and nobody's change
-- is half before and half after. So set lock_timeout.
CREATE FUNCTION headwater.open_comparison(id int) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  before text := current_setting('role');
  table_ oid := (SELECT k.relation FROM headwater.captures AS k WHERE k.id = open_comparison.id);
BEGIN
  PERFORM headwater.become_owner(table_);
  EXECUTE format('LOCK TABLE %s IN SHARE MODE', table_::regclass);
  EXECUTE format('SET LOCAL ROLE %I', before);
END
$$;

CREATE FUNCTION headwater.begin_comparison(id int) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM headwater.captures AS k WHERE k.id = begin_comparison.id AND k.tenant_from = 'session') THEN
    RAISE EXCEPTION 'Rows that were written unseen have no session whose tenant they could take.' USING ERRCODE = 'HW030', HINT = 'Capture the table with --tenant-column.';
  END IF;
  PERFORM FROM headwater.replication AS r FOR UPDATE;
  DELETE FROM headwater.replication_marks AS m WHERE m.capture = begin_comparison.id;
  UPDATE headwater.captures AS k SET state = 'backfilling', comparing = true, backfilled_upto = NULL, backfilled_rows = 0, detail = NULL,
    followed = CASE WHEN k.state <> 'lost' THEN k.followed END  -- a reader passes over what is lost, and must ask anew
  WHERE k.id = begin_comparison.id AND k.state IN ('backfilling', 'live', 'lost');
END
$$;

-- A table that was rewritten since a snapshot looks empty to it.
CREATE FUNCTION headwater.rewritten_since(relation oid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT NOT coalesce(bool_and(c.relfilenode = coalesce(pg_relation_filenode(c.oid), 0)), false) FROM pg_class AS c
  WHERE c.oid IN (SELECT headwater.capture_tables(rewritten_since.relation))
$$;

-- From here on the reader may ask for the table: every transaction that ran when it was published has ended.
CREATE FUNCTION headwater.join_replication(id int, lsn pg_lsn) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.captures AS k SET joined = lsn WHERE k.id = join_replication.id
$$;

-- The next rows of the table in the key's order, each as apply_replication takes it, with the snapshot: that
-- of a REPEATABLE READ transaction. NULL where the snapshot cannot be trusted: then another is needed.
CREATE FUNCTION headwater.read_rows(id int, max_rows int, OUT snapshot text, OUT shape jsonb, OUT rows jsonb, OUT last text[], OUT versions jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off
SET timezone = 'UTC' SET datestyle = 'ISO, YMD' SET intervalstyle = 'iso_8601' SET extra_float_digits = 1 AS $$
DECLARE
  before text := current_setting('role');
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = read_rows.id);
  statement text;
BEGIN
  snapshot := pg_current_snapshot()::text;
  PERFORM headwater.become_owner(c.relation);
  EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', c.relation::regclass);  -- its shape stays until the commit
  EXECUTE format('SET LOCAL ROLE %I', before);
  IF headwater.rewritten_since(c.relation) THEN
    snapshot := NULL;
    RETURN;
  END IF;
  shape := headwater.described_now(c.relation, c.way);
  statement := headwater.rows_statement(c, shape, max_rows);
  PERFORM headwater.become_owner(c.relation);
  EXECUTE statement INTO rows, last;
  EXECUTE format('SET LOCAL ROLE %I', before);
  versions := headwater.versions_of(id, shape, rows);
END
$$;

CREATE FUNCTION headwater.rows_statement(c headwater.captures, shape jsonb, max_rows int) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format('SELECT coalesce(jsonb_agg(jsonb_build_array(NULL, NULL, false, NULL, r.v) ORDER BY r.n), ''[]''), (array_agg(r.k::text ORDER BY r.n DESC))[1]::text[]
      FROM (SELECT ARRAY[%s] AS k, jsonb_build_array(%s) AS v, row_number() OVER (ORDER BY %s) AS n FROM %s AS t%s ORDER BY %3$s LIMIT %6$s) AS r',
    k.texts, (SELECT string_agg(format('t.%I::text', s.name), ', ' ORDER BY s.n) FROM ROWS FROM (jsonb_to_recordset(shape) AS (name text)) WITH ORDINALITY AS s(name, n)),
    k.columns, c.relation::regclass, CASE WHEN c.backfilled_upto IS NULL THEN '' ELSE format(' WHERE (%s) > (%s)', k.columns, k.values) END, max_rows)
  FROM (SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY o.n) AS columns, string_agg(format('t.%I::text', a.attname), ', ' ORDER BY o.n) AS texts,
               string_agg(format('%L::%s', c.backfilled_upto[o.n], format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY o.n) AS values
        FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = o.number) AS k
$$;

-- The versions of the rows' streams as this snapshot has them, in the rows' order; NULL where the shape is news.
CREATE FUNCTION headwater.versions_of(id int, shape jsonb, rows jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = versions_of.id);
BEGIN
  IF c.way = 'replication' OR c.described IS DISTINCT FROM shape THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT jsonb_agg(coalesce(s.version, 0) ORDER BY g.ord) FROM unnest(headwater.read_changes(c, rows)) AS g
          LEFT JOIN headwater.streams AS s ON s.tenant = g.tenant AND s.stream = g.stream);
END
$$;

-- Takes the lock under which a step may tell: of the reader's position, or of each stream. Returns the
-- changes that may be told, or NULL where the step must be read anew.
CREATE FUNCTION headwater.tellable(c headwater.captures, changes headwater.replicated_change[], versions jsonb, snapshot pg_snapshot, lsn pg_lsn)
RETURNS headwater.replicated_change[] LANGUAGE plpgsql SET enable_nestloop = off AS $$
BEGIN
  IF c.way = 'replication' THEN
    PERFORM FROM headwater.replication AS r WHERE r.state = 'live' AND r.applied >= lsn FOR UPDATE;
    IF NOT FOUND THEN
      RETURN NULL;
    END IF;
    RETURN ARRAY(SELECT g FROM unnest(changes) AS g
      LEFT JOIN LATERAL (SELECT * FROM headwater.streams AS s WHERE s.tenant = g.tenant AND s.stream = g.stream OFFSET 0) AS s ON true
      WHERE NOT EXISTS (SELECT FROM headwater.replication_marks AS m WHERE m.capture = c.id AND m.stream IN (g.stream, '')
                        AND NOT pg_visible_in_snapshot(m.xid::text::xid8, snapshot))
        AND (s.version IS NULL OR coalesce((
          SELECT l.source ->> 'slot' IS DISTINCT FROM r.generation::text OR pg_visible_in_snapshot((l.source ->> 'xid')::xid8, snapshot)
          FROM headwater.replication AS r, LATERAL (
            SELECT e.metadata -> 'replicated' AS source FROM headwater.events AS e
            WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position
              AND e.type IN (c.name || '.inserted', c.name || '.updated', c.name || '.deleted') ORDER BY e.version DESC LIMIT 1) AS l), true))
      ORDER BY g.ord);
  END IF;
  INSERT INTO headwater.streams (tenant, stream, version, first_position)
  SELECT g.tenant, g.stream, 0, (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p) FROM unnest(changes) AS g
  ORDER BY g.tenant, g.stream ON CONFLICT DO NOTHING;
  PERFORM FROM headwater.streams AS s JOIN unnest(changes) AS g ON g.tenant = s.tenant AND g.stream = s.stream ORDER BY s.tenant, s.stream FOR UPDATE OF s;
  RETURN ARRAY(SELECT g FROM unnest(changes) AS g JOIN headwater.streams AS s ON s.tenant = g.tenant AND s.stream = g.stream
               WHERE s.version = (versions ->> (g.ord - 1)::int)::int ORDER BY g.ord);
END
$$;

-- Appends what rows read tell that the log does not know. Returns the events appended; NULL where the
-- table was altered in between, or the reader is not there yet: then the step is read anew.
CREATE FUNCTION headwater.compare_rows(id int, snapshot text, shape jsonb, rows jsonb, last text[], versions jsonb, lsn pg_lsn) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on SET work_mem = '64MB' SET jit = off AS $$
DECLARE
  c headwater.captures;
  changes headwater.replicated_change[];
  appended bigint := 0;
BEGIN
  IF NOT EXISTS (SELECT FROM headwater.captures AS k WHERE k.id = compare_rows.id AND k.way = 'triggers') THEN
    PERFORM FROM headwater.replication AS r FOR UPDATE;
  END IF;
  SELECT * INTO c FROM headwater.captures AS k WHERE k.id = compare_rows.id FOR UPDATE;
  IF c.state <> 'backfilling' OR headwater.described_now(c.relation, c.way) IS DISTINCT FROM shape THEN
    RETURN NULL;
  END IF;
  IF c.described IS DISTINCT FROM shape THEN
    -- The reader has passed the ALTER, since the snapshot has: it will tell no older shape.
    IF c.way = 'replication' AND NOT EXISTS (SELECT FROM headwater.replication AS r WHERE r.state = 'live' AND r.applied >= lsn) THEN
      RETURN NULL;
    END IF;
    c.described := shape;
    c := headwater.make_replicated(c);
  END IF;
  IF c.way = 'triggers' AND versions IS NULL AND rows <> '[]' THEN
    RETURN NULL;
  END IF;
  changes := headwater.tellable(c, headwater.read_changes(c, rows), versions, snapshot::pg_snapshot, lsn);
  IF changes IS NULL THEN
    RETURN NULL;
  END IF;
  appended := headwater.tell(changes, CASE WHEN c.comparing THEN '{"resync": true}' ELSE '{"backfill": true}' END::jsonb);
  UPDATE headwater.captures AS k SET backfilled_upto = coalesce(last, k.backfilled_upto), backfilled_rows = k.backfilled_rows + appended WHERE k.id = c.id;
  RETURN appended;
END
$$;

-- Rows that the log holds as living, in the order of tenant and stream: with each its version and its key's values.
CREATE FUNCTION headwater.living_rows(id int, after_tenant text, after_stream text, max_rows int) RETURNS TABLE (tenant text, stream text, version int, key jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
#variable_conflict use_column
DECLARE
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = living_rows.id);
  fields jsonb := (SELECT jsonb_agg(jsonb_build_object('field', k.field, 'kind', k.kind) ORDER BY o.n)
                   FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN headwater.captured_columns(c) AS k ON k.number = o.number);
BEGIN
  RETURN QUERY SELECT s.tenant, s.stream, s.version, (SELECT jsonb_agg(CASE WHEN k.f ->> 'kind' = 'bytes' THEN '\x' || encode(decode(e.data ->> (k.f ->> 'field'), 'base64'), 'hex')
      ELSE coalesce(e.metadata -> 'exact' ->> (k.f ->> 'field'), e.data ->> (k.f ->> 'field')) END ORDER BY k.n)
    FROM jsonb_array_elements(fields) WITH ORDINALITY AS k(f, n))
  FROM headwater.streams AS s CROSS JOIN LATERAL (
    SELECT e.type, e.data, e.metadata FROM headwater.events AS e WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position
      AND e.type IN (c.name || '.inserted', c.name || '.updated', c.name || '.deleted') ORDER BY e.version DESC LIMIT 1) AS e
  WHERE (s.tenant, s.stream) > (after_tenant, after_stream) AND starts_with(s.stream, replace(c.name, '.', '-') || '/') AND e.type <> c.name || '.deleted'
  ORDER BY s.tenant, s.stream LIMIT max_rows;
END
$$;

-- Which of the rows that the log holds as living the table does not have.
CREATE FUNCTION headwater.missing_rows(id int, living jsonb, OUT snapshot text, OUT missing jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET row_security = off SET timezone = 'UTC' SET datestyle = 'ISO, YMD' AS $$
DECLARE
  before text := current_setting('role');
  c headwater.captures := (SELECT k FROM headwater.captures AS k WHERE k.id = missing_rows.id);
  there jsonb;
BEGIN
  snapshot := pg_current_snapshot()::text;
  PERFORM headwater.become_owner(c.relation);
  EXECUTE format('LOCK TABLE %s IN ACCESS SHARE MODE', c.relation::regclass);
  EXECUTE (SELECT format('SELECT coalesce(jsonb_agg(jsonb_build_array(l.n, %s)), ''[]'') FROM jsonb_array_elements($1) WITH ORDINALITY AS l(v, n) JOIN %s AS t ON %s',
      coalesce((SELECT format('t.%I::text', w.attname) FROM pg_attribute AS w WHERE w.attrelid = c.relation AND w.attnum = c.tenant_column), 'NULL'), c.relation::regclass,
      string_agg(format('t.%I = (l.v -> 3 ->> %s)::%s', a.attname, o.n - 1, format_type(a.atttypid, a.atttypmod)), ' AND ' ORDER BY o.n))
    FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN pg_attribute AS a ON a.attrelid = c.relation AND a.attnum = o.number) INTO there USING living;
  EXECUTE format('SET LOCAL ROLE %I', before);
  IF headwater.rewritten_since(c.relation) THEN
    snapshot := NULL;
  END IF;
  -- A row of another tenant is another row.
  missing := (SELECT coalesce(jsonb_agg(l.v ORDER BY l.n), '[]') FROM jsonb_array_elements(living) WITH ORDINALITY AS l(v, n)
              WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(there) AS t(t)
                                WHERE (t.t ->> 0)::int = l.n AND (c.tenant_column IS NULL OR headwater.captured_tenant(t.t ->> 1) = l.v ->> 0)));
END
$$;

CREATE FUNCTION headwater.compare_missing(id int, snapshot text, missing jsonb, lsn pg_lsn) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on SET work_mem = '64MB' SET jit = off AS $$
DECLARE
  c headwater.captures;
  changes headwater.replicated_change[];
BEGIN
  IF NOT EXISTS (SELECT FROM headwater.captures AS k WHERE k.id = compare_missing.id AND k.way = 'triggers') THEN
    PERFORM FROM headwater.replication AS r FOR UPDATE;
  END IF;
  SELECT * INTO c FROM headwater.captures AS k WHERE k.id = compare_missing.id FOR UPDATE;
  changes := ARRAY(SELECT (m.n, c.id, m.v ->> 0, m.v ->> 1, true, NULL, '{}', '{}', NULL, NULL)::headwater.replicated_change
                   FROM jsonb_array_elements(missing) WITH ORDINALITY AS m(v, n));
  changes := headwater.tellable(c, changes, (SELECT jsonb_agg(m.v -> 2 ORDER BY m.n) FROM jsonb_array_elements(missing) WITH ORDINALITY AS m(v, n)), snapshot::pg_snapshot, lsn);
  RETURN CASE WHEN c.state = 'backfilling' AND changes IS NOT NULL THEN headwater.tell(changes, '{"resync": true}') END;
END
$$;

-- Ends a round over the table that began with a snapshot; returns whether the comparison is over. Rows that the
-- slot told in part while it ran are read again, in another round.
CREATE FUNCTION headwater.end_comparison(id int, snapshot text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  over_ boolean;
BEGIN
  PERFORM FROM headwater.replication AS r FOR UPDATE;
  DELETE FROM headwater.replication_marks AS m WHERE m.capture = end_comparison.id AND pg_visible_in_snapshot(m.xid::text::xid8, end_comparison.snapshot::pg_snapshot);
  over_ := NOT EXISTS (SELECT FROM headwater.replication_marks AS m WHERE m.capture = end_comparison.id AND m.reread);
  DELETE FROM headwater.replication_marks AS m WHERE m.capture = end_comparison.id AND over_;
  UPDATE headwater.captures AS k SET state = CASE WHEN over_ THEN 'live' ELSE k.state END, backfilled_upto = CASE WHEN over_ THEN k.backfilled_upto END,
    comparing = k.comparing AND NOT over_ WHERE k.id = end_comparison.id AND k.state = 'backfilling';
  RETURN over_;
END
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.capture_table, headwater.release_table, headwater.begin_capture, headwater.end_capture, headwater.open_comparison,
  headwater.begin_comparison, headwater.join_replication, headwater.read_rows, headwater.rows_statement, headwater.versions_of, headwater.described_now, headwater.rewritten_since, headwater.captured_tenant,
  
  headwater.compare_rows, headwater.living_rows, headwater.missing_rows, headwater.compare_missing, headwater.end_comparison TO headwater_operator;
RESET ROLE;
