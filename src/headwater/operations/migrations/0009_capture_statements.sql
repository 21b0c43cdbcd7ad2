-- The statements and functions that are made for one captured table.
SET ROLE headwater_owner;


-- The field of a single whole number or uuid names the stream; any other key has a field of its own.
CREATE FUNCTION headwater.natural_key(c headwater.captures) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT k.field FROM headwater.captured_columns(c) AS k
  WHERE cardinality(c.key) = 1 AND k.number = c.key[1] AND k.kind IN ('integer', 'uuid') AND k.field ~ '^[a-z_][a-z0-9_]*$'
$$;

-- The key of a row r as the text in its stream's name.
CREATE FUNCTION headwater.key_of_row(c headwater.captures) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN headwater.natural_key(c) IS NULL THEN 'headwater.key_within(' || k.parts || ')' ELSE k.parts END
  FROM (SELECT string_agg(format(CASE WHEN k.kind IN ('integer', 'uuid') THEN 'r.%I::text' WHEN k.kind = 'bytes' THEN 'encode(r.%I, ''hex'')'
          WHEN k.kind IN ('moment', 'iso', 'date') THEN 'headwater.key_part(to_jsonb(r.%I) #>> ''{}'')'
          ELSE 'headwater.key_part(r.%I::text)' END, k.name), ' || '','' || ' ORDER BY o.n)
        FROM unnest(c.key) WITH ORDINALITY AS o(number, n) JOIN headwater.captured_columns(c) AS k ON k.number = o.number) AS k(parts)
$$;

-- The data of a row r: its values as they are, or brought within what the schema allows.
CREATE FUNCTION headwater.captured_data(c headwater.captures, key text, large_bytes int, within boolean) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT string_agg(g.chunk, ' || ' ORDER BY g.n)
  FROM (SELECT f.n / 40 AS n, 'jsonb_build_object(' || string_agg(f.pair, ', ' ORDER BY f.n) || ')' AS chunk
        FROM (SELECT 0 AS n, format('''key'', %s', key) AS pair WHERE headwater.natural_key(c) IS NULL
              UNION ALL SELECT k.ord, format('%L, %s', k.field, headwater.value_of(k.kind, k.element, format('r.%I', k.name), CASE WHEN within AND k.large THEN large_bytes END, within))
              FROM headwater.captured_columns(c) WITH ORDINALITY AS k(number, name, field, kind, element, labels, nullable, large, ord)) AS f
        GROUP BY 1) AS g
$$;

-- What a row r of the table becomes, as a select list: tenant, stream, data, exact. `exact` holds what
-- the data cannot say: a digest of a value too large, the text of an infinite moment. Rows that need
-- it are rare and costly to describe: `brief` gives them no data at all.
CREATE FUNCTION headwater.captured_row(c headwater.captures, brief boolean DEFAULT false) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  large_bytes int := (SELECT 1048576 / (1 + count(*) FILTER (WHERE k.large)) FROM headwater.captured_columns(c) AS k);
  key text := headwater.key_of_row(c);
  plain text := headwater.captured_data(c, key, large_bytes, false);
  condition text;
  fields text;
BEGIN
  SELECT string_agg(x.condition, ' OR '), string_agg(format('CASE WHEN %s THEN jsonb_build_object(%L, %s) ELSE ''{}'' END', x.condition, x.field, x.text), ' || ')
  INTO condition, fields
  FROM (SELECT k.field, headwater.inexact_when(k.kind, k.element, format('r.%I', k.name), CASE WHEN k.large THEN large_bytes END) AS condition,
               headwater.exact_of(k.kind, format('r.%I', k.name), large_bytes) AS text
        FROM headwater.captured_columns(c) AS k) AS x WHERE x.condition IS NOT NULL;
  RETURN format('%s AS tenant, %L || %s AS stream, ',
    CASE c.tenant_from WHEN 'fixed' THEN format('%L::text', c.fixed_tenant) WHEN 'session' THEN '(SELECT headwater.session_tenant())'
      ELSE (SELECT format('headwater.captured_tenant(r.%I::text)', a.attname) FROM pg_attribute AS a WHERE a.attrelid = c.relation AND a.attnum = c.tenant_column) END,
    replace(c.name, '.', '-') || '/', key) || CASE
    WHEN condition IS NULL THEN format('%s AS data, ''{}''::jsonb AS exact', plain)
    WHEN brief THEN format('CASE WHEN %s THEN NULL ELSE %s END AS data, ''{}''::jsonb AS exact', condition, plain)
    ELSE format('CASE WHEN %1$s THEN %2$s ELSE %3$s END AS data, CASE WHEN %1$s THEN jsonb_build_object(''exact'', %4$s) ELSE ''{}'' END AS exact',
                condition, headwater.captured_data(c, key, large_bytes, true), plain, fields) END;
END
$$;

-- The fields that are the same in two rows' data, as an expression of type text[].
CREATE FUNCTION headwater.unchanged_fields(c headwater.captures, old text, new text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT 'ARRAY[' || string_agg(format('CASE WHEN %s -> %L = %s -> %2$L THEN %2$L END', old, f.field, new), ', ') || ']::text[]'
  FROM (SELECT k.field FROM headwater.captured_columns(c) AS k UNION ALL SELECT 'key' WHERE headwater.natural_key(c) IS NULL) AS f
$$;

-- The events of a set of changes: a CTE `changes` (ord, tenant, stream, old, new, old_exact,
-- new_exact) goes before. A row that the log has never seen is told of first, as it was. Streams are
-- locked in sorted order, and before any position is drawn: the sort below nextval waits for all.
CREATE FUNCTION headwater.changes_to_events(c headwater.captures) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format($sql$, reserved AS (
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    SELECT c.tenant, c.stream, CASE WHEN c.old IS NULL THEN 1 ELSE 2 END, (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p)
    FROM changes AS c ORDER BY c.tenant, c.stream
    ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + 1
    RETURNING s.tenant, s.stream, s.version, s.xmax = 0 AS fresh)
  INSERT INTO headwater.events (position, tenant, stream, version, type, schema_version, id, recorded_at, data, metadata)
  SELECT o.position, o.tenant, o.stream, o.version, o.type, %s, headwater.event_id(t.prefix, o.position), t.moment, o.data, o.metadata
  FROM (SELECT nextval('headwater.position_seq') AS position, n.*
        FROM (SELECT c.tenant, c.stream, v.version - w.before AS version,
                CASE WHEN w.before = 1 OR c.old IS NULL THEN %L WHEN c.new IS NULL THEN %L ELSE %L END AS type,
                CASE WHEN w.before = 1 OR c.new IS NULL THEN c.old WHEN c.old IS NULL THEN c.new
                  ELSE c.new || jsonb_build_object('before', c.old - %s) END AS data,
                CASE WHEN w.before = 1 THEN c.old_exact || '{"backfill": true}' WHEN c.new IS NULL THEN c.old_exact ELSE c.new_exact END AS metadata
              FROM changes AS c JOIN reserved AS v ON v.tenant = c.tenant AND v.stream = c.stream
              CROSS JOIN LATERAL unnest(CASE WHEN v.fresh AND c.old IS NOT NULL THEN ARRAY[1, 0] ELSE ARRAY[0] END) AS w(before)
              ORDER BY c.ord, w.before DESC) AS n) AS o,
       (SELECT headwater.id_prefix(%L, m.moment) AS prefix, m.moment FROM (SELECT clock_timestamp() AS moment OFFSET 0) AS m OFFSET 0) AS t$sql$,
    c.schema_version, c.name || '.inserted', c.name || '.deleted', c.name || '.updated', headwater.unchanged_fields(c, 'c.old', 'c.new'), l.log_id)
  FROM headwater.log AS l
$$;

-- The one statement that appends what a statement on the table changed. `checked` leaves out rows
-- whose story has gone on: a row trigger of the table's own may change a row again, and that inner
-- statement ends, and is told, before the outer one.
CREATE FUNCTION headwater.capture_statement(c headwater.captures, operation text, checked boolean DEFAULT false) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  old text := 'SELECT row_number() OVER () AS ord, ' || headwater.captured_row(c) || ' FROM headwater_old AS r';
  new text := 'SELECT row_number() OVER () AS ord, ' || headwater.captured_row(c) || ' FROM headwater_new AS r';
BEGIN
  RETURN 'WITH seen AS MATERIALIZED (' || CASE operation
    WHEN 'INSERT' THEN 'SELECT n.ord, n.tenant, n.stream, NULL::jsonb AS old, n.data AS new, NULL::jsonb AS old_exact, n.exact AS new_exact FROM ('
      || new || ') AS n'
    WHEN 'DELETE' THEN 'SELECT o.ord, o.tenant, o.stream, o.data AS old, NULL::jsonb AS new, o.exact AS old_exact, NULL::jsonb AS new_exact FROM ('
      || old || ') AS o'
    ELSE 'SELECT coalesce(n.ord, o.ord) AS ord, tenant, stream, o.data AS old, n.data AS new, o.exact AS old_exact, n.exact AS new_exact FROM ('
      || old || ') AS o FULL JOIN (' || new
      || ') AS n USING (tenant, stream) WHERE o.data IS NULL OR n.data IS NULL OR o.data <> n.data OR o.exact <> n.exact' END
    || '), changes AS (SELECT * FROM seen' || CASE WHEN checked THEN format($sql$ AS s WHERE NOT EXISTS (
      SELECT FROM (SELECT e.type, e.data - 'before' AS data FROM headwater.events AS e
                   WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.type IN (%L, %L, %L) ORDER BY e.version DESC LIMIT 1) AS l
      WHERE CASE WHEN s.old IS NULL THEN l.type <> %3$L ELSE l.type = %3$L OR l.data <> s.old END)$sql$,
      c.name || '.inserted', c.name || '.updated', c.name || '.deleted') ELSE '' END || ')' || headwater.changes_to_events(c);
END
$$;

-- Appends the rows given as inserted, those that the log has not seen. No lock on the table is
-- needed: whoever changes a row that has no stream makes its stream, and one of the two is first.
CREATE FUNCTION headwater.backfill_statement(c headwater.captures) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format($sql$WITH found AS MATERIALIZED (SELECT row_number() OVER () AS ord, %s FROM unnest($1) AS r), reserved AS (
    INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
    SELECT f.tenant, f.stream, 1, (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p) FROM found AS f ORDER BY f.tenant, f.stream
    ON CONFLICT DO NOTHING RETURNING s.tenant, s.stream)
  INSERT INTO headwater.events (position, tenant, stream, version, type, schema_version, id, recorded_at, data, metadata)
  SELECT o.position, o.tenant, o.stream, 1, %L, %s, headwater.event_id(t.prefix, o.position), t.moment, o.data, o.exact || '{"backfill": true}'
  FROM (SELECT nextval('headwater.position_seq') AS position, n.*
        FROM (SELECT f.* FROM found AS f JOIN reserved AS v ON v.tenant = f.tenant AND v.stream = f.stream ORDER BY f.ord) AS n) AS o,
       (SELECT headwater.id_prefix(%L, m.moment) AS prefix, m.moment FROM (SELECT clock_timestamp() AS moment OFFSET 0) AS m OFFSET 0) AS t$sql$,
    headwater.captured_row(c), c.name || '.inserted', c.schema_version, l.log_id)
  FROM headwater.log AS l
$$;

-- The statements for one changed row whose stream exists: the same as above, without its joins and
-- sorts. Where they do not suit they fall through.
CREATE FUNCTION headwater.capture_one(c headwater.captures, operation text) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT format(CASE operation
    WHEN 'INSERT' THEN $sql$SELECT n.tenant, n.stream, n.data, n.exact INTO hw_tenant, hw_stream, hw_data, hw_exact FROM (SELECT %1$s FROM headwater_new AS r) AS n;
      IF hw_data IS NOT NULL THEN
        INSERT INTO headwater.streams AS s (tenant, stream, version, first_position)
        SELECT hw_tenant, hw_stream, 1, greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p
        ON CONFLICT (tenant, stream) DO UPDATE SET version = s.version + 1 RETURNING s.version INTO hw_version;
      END IF;$sql$
    WHEN 'UPDATE' THEN $sql$SELECT n.tenant, n.stream, n.data, n.exact, o.data, o.tenant = n.tenant AND o.stream = n.stream AND o.data IS NOT NULL AND n.data IS NOT NULL
        INTO hw_tenant, hw_stream, hw_data, hw_exact, hw_old, hw_suits
      FROM (SELECT %1$s FROM headwater_new AS r) AS n, (SELECT %1$s FROM headwater_old AS r) AS o;
      IF hw_suits THEN
        IF hw_old = hw_data THEN
          RETURN NULL;
        END IF;
        hw_data := hw_data || jsonb_build_object('before', hw_old - %4$s);
        UPDATE headwater.streams AS s SET version = s.version + 1 WHERE s.tenant = hw_tenant AND s.stream = hw_stream RETURNING s.version INTO hw_version;
      END IF;$sql$
    ELSE $sql$SELECT o.tenant, o.stream, o.data, o.exact INTO hw_tenant, hw_stream, hw_data, hw_exact FROM (SELECT %1$s FROM headwater_old AS r) AS o;
      IF hw_data IS NOT NULL THEN
        UPDATE headwater.streams AS s SET version = s.version + 1 WHERE s.tenant = hw_tenant AND s.stream = hw_stream RETURNING s.version INTO hw_version;
      END IF;$sql$
    END || $sql$
      IF hw_version IS NOT NULL THEN
        hw_position := nextval('headwater.position_seq');
        INSERT INTO headwater.events (position, tenant, stream, version, type, schema_version, id, recorded_at, data, metadata)
        VALUES (hw_position, hw_tenant, hw_stream, hw_version, %2$L, %3$s, headwater.event_id(headwater.id_prefix(%5$L, clock_timestamp()), hw_position),
                clock_timestamp(), hw_data, hw_exact);
        RETURN NULL;
      END IF;$sql$, headwater.captured_row(c, brief => true), c.name || CASE operation WHEN 'INSERT' THEN '.inserted' WHEN 'UPDATE' THEN '.updated' ELSE '.deleted' END,
    c.schema_version, headwater.unchanged_fields(c, 'hw_old', 'hw_data'), l.log_id)
  FROM headwater.log AS l
$$;

-- Registers the types of the table's shape of now; returns their version: one that fits already, or the next.
CREATE FUNCTION headwater.register_capture(c headwater.captures) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  row_schema jsonb;
  changed_schema jsonb;
  natural_ text := headwater.natural_key(c);
  pattern text := format('%s/{%s}', replace(c.name, '.', '-'), coalesce(natural_, 'key'));
  wanted int;
BEGIN
  SELECT jsonb_build_object('type', 'object', 'additionalProperties', false,
    'properties', jsonb_object_agg(f.field, f.schema), 'required', jsonb_agg(f.field ORDER BY f.field COLLATE "C")) INTO row_schema
  FROM (SELECT k.field, headwater.schema_of_kind(k.kind, k.element, k.labels, k.nullable) AS schema FROM headwater.captured_columns(c) AS k
        UNION ALL SELECT 'key', '{"type": "string"}' WHERE natural_ IS NULL) AS f;
  changed_schema := jsonb_set(jsonb_set(row_schema, '{properties,before}', '{"type": "object", "additionalProperties": {}}'), '{required}',
    (SELECT jsonb_agg(f.f ORDER BY f.f COLLATE "C") FROM (SELECT jsonb_array_elements_text(row_schema -> 'required') UNION ALL SELECT 'before') AS f(f)));
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.registry', 0));
  SELECT max(i.schema_version) INTO wanted
  FROM headwater.event_types AS i JOIN headwater.event_types AS u ON u.type = c.name || '.updated' AND u.schema_version = i.schema_version
  WHERE i.type = c.name || '.inserted' AND i.schema = row_schema AND u.schema = changed_schema AND i.stream_pattern = pattern;
  IF wanted IS NULL THEN
    SELECT coalesce(max(t.schema_version), 0) + 1 INTO wanted FROM headwater.event_types AS t
    WHERE t.type IN (c.name || '.inserted', c.name || '.updated', c.name || '.deleted');
    PERFORM headwater.register_type(c.name || '.inserted', wanted, pattern, row_schema);
    PERFORM headwater.register_type(c.name || '.deleted', wanted, pattern, row_schema);
    PERFORM headwater.register_type(c.name || '.updated', wanted, pattern, changed_schema);
  END IF;
  RETURN wanted;
END
$$;

-- Makes the capture's functions for the table's shape of now.
CREATE FUNCTION headwater.make_capture(INOUT c headwater.captures) LANGUAGE plpgsql AS $$
DECLARE
  settings text := 'SET search_path = pg_catalog, pg_temp SET row_security = on SET enable_nestloop = off SET work_mem = ''64MB'' SET jit = off';
  kinds text[] := ARRAY(SELECT unnest(ARRAY[k.kind, k.element]) FROM headwater.captured_columns(c) AS k);
  enums text;
  arms text := '';
  operation text;
BEGIN
  c.shape := headwater.table_shape(c.relation);
  c.schema_version := headwater.register_capture(c);
  IF kinds && ARRAY['moment', 'iso', 'other'] THEN
    settings := settings || ' SET timezone = ''UTC'' SET datestyle = ''ISO, YMD'' SET intervalstyle = ''iso_8601''';
  END IF;
  IF kinds && ARRAY['float', 'other'] THEN
    settings := settings || ' SET extra_float_digits = 1';
  END IF;
  -- A new label of an enum alters no table: it is noticed by its first use.
  SELECT string_agg(CASE k.kind WHEN 'enum' THEN format('r.%I::text = ANY (%L)', k.name, k.labels)
           ELSE format('array_remove(r.%I::text[], NULL) <@ %L', k.name, k.labels) END, ' AND ') INTO enums
  FROM headwater.captured_columns(c) AS k WHERE k.labels IS NOT NULL;
  FOREACH operation IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
    arms := arms || format($arm$
  WHEN %L THEN
    SELECT count(*), headwater.table_shape(%s) = %L INTO hw_rows, hw_known FROM (SELECT FROM headwater_%s LIMIT 2) AS r;
    IF hw_rows = 0 THEN
      RETURN NULL;
    END IF;
    IF pg_trigger_depth() > 1 AND hw_told < pg_trigger_depth() THEN
      PERFORM set_config(%L, pg_trigger_depth()::text, true);
    END IF;%s
    IF hw_known AND hw_told > pg_trigger_depth() THEN
      %s;
      RETURN NULL;
    END IF;
    IF hw_known AND hw_rows = 1 THEN
      %s
    END IF;
    IF hw_known THEN
      %s;
      RETURN NULL;
    END IF;$arm$, operation, c.relation, c.shape, CASE operation WHEN 'DELETE' THEN 'old' ELSE 'new' END, 'headwater.told_' || c.id,
      CASE WHEN operation <> 'DELETE' AND enums IS NOT NULL THEN format(E'\n    IF hw_known THEN\n      hw_known := NOT EXISTS (SELECT FROM headwater_new AS r WHERE NOT (%s));\n    END IF;', enums) END,
      headwater.capture_statement(c, operation, checked => true), headwater.capture_one(c, operation), headwater.capture_statement(c, operation));
  END LOOP;
  EXECUTE format('CREATE OR REPLACE FUNCTION headwater_captures.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER %s AS %L',
    'changes_' || c.id, settings, format($body$
#variable_conflict use_column
DECLARE
  hw_rows bigint;
  hw_known boolean;
  hw_tenant text;
  hw_stream text;
  hw_data jsonb;
  hw_exact jsonb;
  hw_old jsonb;
  hw_suits boolean;
  hw_version int;
  hw_position bigint;
  hw_told int := coalesce(nullif(current_setting(%3$L, true), '')::int, 0);  -- the deepest that has told in this transaction
BEGIN
  CASE TG_OP%1$s
  ELSE
    PERFORM headwater.capture_truncate(%2$s, TG_RELID);
    RETURN NULL;
  END CASE;
  EXECUTE headwater.reshape_capture(%2$s, TG_RELID, TG_OP);
  RETURN NULL;
END
$body$, arms, c.id, 'headwater.told_' || c.id));
  EXECUTE format('CREATE OR REPLACE FUNCTION headwater_captures.%I(anyarray) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER %s AS %L',
    'existing_' || c.id, settings, format($body$
#variable_conflict use_column
DECLARE
  hw_rows bigint;
BEGIN
  %s;
  GET DIAGNOSTICS hw_rows = ROW_COUNT;
  RETURN hw_rows;
END
$body$, headwater.backfill_statement(c)));
  EXECUTE format('REVOKE EXECUTE ON FUNCTION headwater_captures.%I(), headwater_captures.%I(anyarray) FROM PUBLIC', 'changes_' || c.id, 'existing_' || c.id);
  UPDATE headwater.captures AS k SET shape = c.shape, schema_version = c.schema_version WHERE k.id = c.id;
END
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
RESET ROLE;
