-- The registry: each event type's JSON Schema, and the check that it is compiled to.
SET ROLE headwater_owner;

CREATE TABLE headwater.event_types (
  type text NOT NULL CHECK (type ~ '^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}$' AND length(type) <= 100),
  schema_version int NOT NULL CHECK (schema_version > 0),
  stream_pattern text NOT NULL,
  schema jsonb NOT NULL,
  check_name text NOT NULL UNIQUE,
  registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (type, schema_version)
);
CREATE SEQUENCE headwater.check_number;
GRANT SELECT ON headwater.event_types TO headwater_app, headwater_relay, headwater_operator;

-- One rule of a schema as a condition over the jsonb expression `at` and its text `as_text`. Both are
-- SQL made here, never from outside, and every literal goes through %L.
CREATE FUNCTION headwater.compile_condition(schema jsonb, at text, as_text text, depth int DEFAULT 0) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  kind text := schema->>'type';
  format_ text := schema->>'format';
  known text[] := ARRAY['type', 'format', 'enum', 'anyOf', 'properties', 'required', 'additionalProperties',
    'items', 'minimum', 'maximum', 'minLength', 'maxLength', 'minItems', 'maxItems', 'default', 'title', 'description'];
  terms text[] := '{}';
  item text := format('i%s.value', depth);
BEGIN
  IF schema - known <> '{}' THEN
    RAISE EXCEPTION 'The schema uses %, which cannot be checked in the database.', schema - known
      USING ERRCODE = 'HW010', HINT = 'Remove it from the type; check it in the code that decides.';
  END IF;
  IF depth > 8 THEN
    RAISE EXCEPTION 'The schema nests more than 8 levels.'
      USING ERRCODE = 'HW010', HINT = 'Flatten the event''s data.';
  END IF;
  IF schema = '{}' THEN
    RETURN 'true';
  END IF;
  IF schema ? 'anyOf' THEN
    RETURN (SELECT '(' || string_agg(headwater.compile_condition(o.value, at, as_text, depth), ' OR ') || ')'
            FROM jsonb_array_elements(schema->'anyOf') AS o);
  END IF;
  IF schema ? 'enum' THEN
    RETURN (SELECT format('%s IN (%s)', at, string_agg(format('%L::jsonb', o.value), ', '))
            FROM jsonb_array_elements(schema->'enum') AS o);
  END IF;
  IF format_ = 'decimal' THEN
    RETURN format('(jsonb_typeof(%1$s) = ''number'' OR (jsonb_typeof(%1$s) = ''string'' AND %2$s ~ ''^[-+]?[0-9]+(\.[0-9]+)?$'' AND length(%2$s) <= 1000))',
                  at, as_text);
  END IF;

  -- A number is looked at only where it is one: CASE, since AND promises no order.
  IF kind IN ('integer', 'number') THEN
    RETURN format('CASE WHEN jsonb_typeof(%1$s) = ''number'' THEN %2$s(%1$s)::numeric BETWEEN %3$s AND %4$s ELSE false END',
      at, CASE kind WHEN 'integer' THEN format('(%s)::numeric %% 1 = 0 AND ', at) ELSE '' END,
      coalesce(schema->>'minimum', CASE kind WHEN 'integer' THEN '-9223372036854775808' ELSE '-1.7e308' END)::numeric,
      coalesce(schema->>'maximum', CASE kind WHEN 'integer' THEN '9223372036854775807' ELSE '1.7e308' END)::numeric);
  END IF;
  terms := ARRAY[format('jsonb_typeof(%s) = %L', at, kind)];
  CASE kind
    WHEN 'null', 'boolean' THEN
      NULL;
    WHEN 'string' THEN
      IF schema ? 'minLength' THEN
        terms := terms || format('length(%s) >= %s', as_text, (schema->>'minLength')::int);
      END IF;
      IF schema ? 'maxLength' THEN
        terms := terms || format('length(%s) <= %s', as_text, (schema->>'maxLength')::int);
      END IF;
      CASE format_
        WHEN 'date-time' THEN terms := terms || format('headwater.is_date_time(%s)', as_text);
        WHEN 'date' THEN terms := terms || format('headwater.is_date(%s)', as_text);
        WHEN 'uuid' THEN terms := terms || format('%s ~* ''^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$''', as_text);
        ELSE
          IF format_ IS NOT NULL THEN
            RAISE EXCEPTION 'The format % cannot be checked in the database.', format_
              USING ERRCODE = 'HW010', HINT = 'Use date-time, date, uuid or decimal.';
          END IF;
      END CASE;
    WHEN 'array' THEN
      IF schema ? 'minItems' OR schema ? 'maxItems' THEN
        terms := terms || format('(CASE WHEN jsonb_typeof(%1$s) = ''array'' THEN jsonb_array_length(%1$s) BETWEEN %2$s AND %3$s END)',
          at, coalesce((schema->>'minItems')::int, 0), coalesce((schema->>'maxItems')::int, 2147483647));
      END IF;
      terms := terms || format('(CASE WHEN jsonb_typeof(%1$s) = ''array'' THEN NOT EXISTS (SELECT 1 FROM jsonb_array_elements(%1$s) AS i%2$s(value) WHERE (%3$s) IS NOT TRUE) END)',
        at, depth, headwater.compile_condition(coalesce(schema->'items', '{}'), item, format('(%s #>> ''{}'')', item), depth + 1));
    WHEN 'object' THEN
      IF schema ? 'properties' THEN
        terms := terms || headwater.compile_object(schema, at, depth);
      ELSIF jsonb_typeof(schema->'additionalProperties') = 'object' THEN
        terms := terms || format('(CASE WHEN jsonb_typeof(%1$s) = ''object'' THEN NOT EXISTS (SELECT 1 FROM jsonb_each(%1$s) AS i%2$s WHERE (%3$s) IS NOT TRUE) END)',
          at, depth, headwater.compile_condition(schema->'additionalProperties', item, format('(%s #>> ''{}'')', item), depth + 1));
      END IF;
    ELSE
      RAISE EXCEPTION 'The schema type % cannot be checked in the database.', coalesce(kind, schema::text)
        USING ERRCODE = 'HW010', HINT = 'Use string, integer, number, boolean, array, object, null, enum or anyOf.';
  END CASE;
  RETURN '(' || array_to_string(terms, ' AND ') || ')';
END
$$;

-- The same rule as a jsonpath predicate over the item `at`, in strict mode, or NULL where jsonpath
-- cannot say it. What it accepts fits; what it does not accept may fit still, and the conditions above
-- decide. One operator with a constant is prepared faster than a condition for each field; patterns are
-- left to the conditions, which match them faster.
CREATE FUNCTION headwater.compile_path(schema jsonb, at text) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  kind text := schema->>'type';
BEGIN
  IF schema = '{}' THEN
    RETURN format('%s.type() != ""', at);
  ELSIF schema ? 'anyOf' THEN
    RETURN (SELECT CASE WHEN bool_and(o.path IS NOT NULL) THEN '(' || string_agg(o.path, ' || ') || ')' END
            FROM (SELECT headwater.compile_path(e.value, at) AS path FROM jsonb_array_elements(schema->'anyOf') AS e) AS o);
  ELSIF schema ? 'enum' THEN
    RETURN (SELECT CASE WHEN bool_and(jsonb_typeof(o.value) NOT IN ('object', 'array'))
                        THEN '(' || string_agg(format('%s == %s', at, o.value), ' || ') || ')' END
            FROM jsonb_array_elements(schema->'enum') AS o);
  ELSIF kind = 'null' THEN
    RETURN format('%s == null', at);
  ELSIF kind = 'boolean' THEN
    RETURN format('%s.type() == "boolean"', at);
  ELSIF kind IN ('integer', 'number') THEN
    RETURN format('(%1$s.type() == "number" && %2$s%1$s >= %3$s && %1$s <= %4$s)',
      at, CASE kind WHEN 'integer' THEN format('%s %% 1 == 0 && ', at) ELSE '' END,
      coalesce(schema->>'minimum', CASE kind WHEN 'integer' THEN '-9223372036854775808' ELSE '-1.7e308' END)::numeric,
      coalesce(schema->>'maximum', CASE kind WHEN 'integer' THEN '9223372036854775807' ELSE '1.7e308' END)::numeric);
  ELSIF kind = 'string' AND NOT schema ?| ARRAY['format', 'minLength', 'maxLength'] THEN
    RETURN format('%s.type() == "string"', at);
  END IF;
  RETURN NULL;
END
$$;

-- The conditions of an object's fields: all required ones are there, each fits, none is unknown.
CREATE FUNCTION headwater.compile_object(schema jsonb, at text, depth int) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
  names text[] := ARRAY(SELECT jsonb_object_keys(schema->'properties'));
  terms text[] := ARRAY[format('(%s - %L::text[]) = ''{}''::jsonb', at, names)];
  field record;
  condition text;
BEGIN
  FOR field IN SELECT p.key, p.value FROM jsonb_each(schema->'properties') AS p LOOP
    condition := headwater.compile_condition(field.value, format('(%s -> %L)', at, field.key),
      format('(%s ->> %L)', at, field.key), depth);
    IF coalesce(schema->'required' ? field.key, false) THEN
      terms := terms || condition;
    ELSE
      terms := terms || format('((%s -> %L) IS NULL OR %s)', at, field.key, condition);
    END IF;
  END LOOP;
  RETURN terms;
END
$$;

-- Exactly the dates and instants that Python's and Postgres's parsers both read. This runs at every
-- append: a layout, the characters, and then the type's own parser. Before Postgres 16 no parser
-- answers without raising, so a regular expression and the calendar are spelled out.
DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 160000 THEN
    CREATE FUNCTION headwater.is_date(value text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $body$
      SELECT value LIKE '____-__-__' AND ltrim(value, '0123456789-') = '' AND value COLLATE "C" >= '0'
         AND pg_input_is_valid(value, 'date')
    $body$;
    CREATE FUNCTION headwater.is_clock(value text) RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE AS $body$
      SELECT value LIKE '____-__-__T__:__:__%' AND ltrim(value, '0123456789-:T+.Z') = '' AND value COLLATE "C" >= '0'
         AND substr(value, 12, 2) COLLATE "C" < '24' AND substr(value, 18, 2) COLLATE "C" < '60'
         AND pg_input_is_valid(value, 'timestamptz')
    $body$;
  ELSE
    CREATE FUNCTION headwater.is_date(value text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
      SELECT CASE WHEN value ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$' AND left(value, 4) <> '0000'
        THEN substr(value, 9, 2)::int <= extract(day FROM
          make_date(substr(value, 1, 4)::int, substr(value, 6, 2)::int, 1) + interval '1 month' - interval '1 day')
        ELSE false END
    $body$;
    CREATE FUNCTION headwater.is_clock(value text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
      SELECT value ~ '^[0-9-]{10}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]' AND headwater.is_date(left(value, 10))
    $body$;
  END IF;
END
$$;
CREATE FUNCTION headwater.is_date_time(value text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT headwater.is_clock(value) AND (substr(value, 20) IN ('Z', '+00:00')
         OR substr(value, 20) ~ '^(\.[0-9]{1,6})?(Z|[-+](0[0-9]|1[0-5]):[0-5][0-9])$')
$$;

-- What a stream of this type must be called, as an expression over `data`: 'order/' || order.
CREATE FUNCTION headwater.compile_stream(pattern text, schema jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  part record;
  parts text[] := '{}';
BEGIN
  IF pattern !~ '^[a-z][a-z0-9_-]*/[^{}]*(\{[A-Za-z_][A-Za-z0-9_]*\}[^{}]*)+$' THEN
    RAISE EXCEPTION 'The stream pattern % is malformed.', quote_literal(pattern)
      USING ERRCODE = 'HW010', HINT = 'Write category/{field}, such as order/{order}.';
  END IF;
  FOR part IN SELECT m[1] AS fixed, m[2] AS field
              FROM regexp_matches(pattern, '([^{}]+)|\{([^{}]+)\}', 'g') AS m LOOP
    IF part.field IS NULL THEN
      parts := parts || format('%L', part.fixed);
    ELSIF coalesce(schema->'required' ? part.field, false) THEN
      parts := parts || format('(data ->> %L)', part.field);
    ELSE
      RAISE EXCEPTION 'The stream pattern % names the field %, which is not a required field.',
        quote_literal(pattern), part.field USING ERRCODE = 'HW010', HINT = 'Name required fields only.';
    END IF;
  END LOOP;
  RETURN array_to_string(parts, ' || ');
END
$$;

-- Registers a type. Registering the same again does nothing; another schema under the same version
-- is refused, because events of that version exist or may exist.
CREATE FUNCTION headwater.register_type(
  type text, schema_version int, stream_pattern text, schema jsonb
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  existing headwater.event_types;
  number bigint;
  names text[];
  field record;
  required boolean;
  condition text;
  path text;
  paths text[] := '{}';
  rest text[] := '{}';
  arms text := '';
  stream text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.registry', 0));
  SELECT * INTO existing FROM headwater.event_types AS t
   WHERE t.type = register_type.type AND t.schema_version = register_type.schema_version;
  IF FOUND THEN
    IF existing.schema = register_type.schema AND existing.stream_pattern = register_type.stream_pattern THEN
      RETURN false;
    END IF;
    RAISE EXCEPTION 'Version % of the event type % is registered with another schema.',
      register_type.schema_version, quote_literal(register_type.type)
      USING ERRCODE = 'HW011', HINT = 'Events are immutable: give the changed type the next version.';
  END IF;
  IF register_type.schema->>'type' IS DISTINCT FROM 'object' OR NOT register_type.schema ? 'properties' THEN
    RAISE EXCEPTION 'The schema of % is not an object with properties.', quote_literal(register_type.type)
      USING ERRCODE = 'HW010', HINT = 'An event''s data is a JSON object.';
  END IF;
  number := nextval('headwater.check_number');
  names := ARRAY(SELECT jsonb_object_keys(register_type.schema->'properties'));
  stream := headwater.compile_stream(register_type.stream_pattern, register_type.schema);
  FOR field IN SELECT p.key, p.value FROM jsonb_each(register_type.schema->'properties') AS p LOOP
    required := coalesce(register_type.schema->'required' ? field.key, false);
    condition := headwater.compile_condition(field.value, format('(data -> %L)', field.key), format('(data ->> %L)', field.key));
    condition := CASE WHEN required THEN format('((data -> %L) IS NOT NULL AND %s)', field.key, condition)
                      ELSE format('((data -> %L) IS NULL OR %s)', field.key, condition) END;
    path := headwater.compile_path(field.value, '$.' || to_json(field.key));
    IF path IS NULL THEN
      rest := rest || condition;
    ELSE
      paths := paths || CASE WHEN required THEN path
                             ELSE format('((($.%s.type() == "") is unknown) || %s)', to_json(field.key), path) END;
    END IF;
    arms := arms || format(' WHEN %s IS NOT TRUE THEN CASE WHEN (data -> %2$L) IS NULL THEN ''field '' || %2$L || '' is missing.''
                             ELSE ''field '' || %2$L || '' does not fit '' || %3$L || ''.'' END', condition, field.key, field.value::text);
  END LOOP;
  -- Why the data does not fit, in words, or NULL.
  EXECUTE format($body$CREATE FUNCTION headwater_checks.%I(stream text, data jsonb) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE AS $check$ BEGIN RETURN CASE WHEN jsonb_typeof(data) <> 'object' THEN 'it is not an object.'
      WHEN (data - %L::text[]) <> '{}'::jsonb THEN 'unknown field ' || (data - %2$L::text[])::text || '.'%s
      WHEN stream IS DISTINCT FROM %s THEN 'the stream is not ' || %L || ' of the data.' END; END $check$ $body$,
    'reason_' || number, names, arms, stream, register_type.stream_pattern);
  -- Whether it fits, in few operators; in doubt the words decide.
  EXECUTE format($body$CREATE FUNCTION headwater_checks.%I(stream text, data jsonb) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE AS $check$ SELECT CASE WHEN %s
      THEN CASE WHEN %s THEN NULL ELSE headwater_checks.%I(stream, data) END ELSE headwater_checks.%4$I(stream, data) END $check$ $body$,
    'check_' || number,
    CASE WHEN paths = '{}' THEN 'jsonb_typeof(data) = ''object''' ELSE format('data @@ %L::jsonpath', 'strict ' || array_to_string(paths, ' && ')) END,
    array_to_string(ARRAY[format('(data - %L::text[]) = ''{}''::jsonb', names), format('stream = %s', stream)] || rest, ' AND '),
    'reason_' || number);
  INSERT INTO headwater.event_types (type, schema_version, stream_pattern, schema, check_name)
  VALUES (register_type.type, register_type.schema_version, register_type.stream_pattern, register_type.schema, 'check_' || number);
  PERFORM headwater.compile_registry();
  RETURN true;
END
$$;

-- One function over all types: NULL when the event fits, else SQLSTATE and sentence. It finds the type
-- by halves, so an append prepares the check of its own type and of no other.
CREATE FUNCTION headwater.compile_registry() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format($body$CREATE OR REPLACE FUNCTION headwater.refusal(type text, schema_version int, stream text, data jsonb)
    RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE AS %L $body$,
    format('BEGIN %s RETURN headwater.unknown_type(type, schema_version); END',
           headwater.compile_choice(ARRAY(SELECT DISTINCT t.type COLLATE "C" FROM headwater.event_types AS t ORDER BY 1))));
END
$$;

CREATE FUNCTION headwater.compile_choice(types text[]) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  half int := cardinality(types) / 2;
BEGIN
  IF half = 0 THEN
    RETURN (SELECT format('IF type = %L THEN %s END IF;', types[1],
              string_agg(format('IF schema_version = %s THEN RETURN %L || headwater_checks.%I(stream, data); END IF;', t.schema_version,
                                'HW004The data does not fit ' || t.type || ': ', t.check_name), ' ' ORDER BY t.schema_version DESC))
            FROM headwater.event_types AS t WHERE t.type = types[1]);
  END IF;
  RETURN format('IF type COLLATE "C" <= %L THEN %s ELSE %s END IF;', types[half],
                headwater.compile_choice(types[:half]), headwater.compile_choice(types[half + 1:]));
END
$$;

CREATE FUNCTION headwater.unknown_type(type text, schema_version int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT 'HW003The event type ' || coalesce(quote_literal(left(type, 100)), 'NULL')
         || ' version ' || coalesce(schema_version::text, 'NULL') || ' is not registered.'
$$;

CREATE FUNCTION headwater.refusal(type text, schema_version int, stream text, data jsonb) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE AS $$ SELECT headwater.unknown_type(type, schema_version) $$;

REVOKE EXECUTE ON FUNCTION headwater.compile_condition, headwater.compile_object, headwater.compile_stream,
  headwater.compile_path, headwater.compile_choice, headwater.compile_registry, headwater.register_type FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.register_type TO headwater_operator;
RESET ROLE;
