-- Capture: changes of ordinary tables become events. Per captured table one trigger function is
-- generated here; it runs as headwater_owner, which has no rights on the table itself.
SET ROLE headwater_owner;

CREATE SCHEMA headwater_captures;
GRANT USAGE ON SCHEMA headwater_captures TO PUBLIC;  -- its functions are granted one by one

CREATE SEQUENCE headwater.capture_number AS int;
CREATE TABLE headwater.captures (
  id int PRIMARY KEY DEFAULT nextval('headwater.capture_number'),
  name text NOT NULL,
  relation oid NOT NULL,
  table_name text NOT NULL,
  tenant_from text NOT NULL CHECK (tenant_from IN ('fixed', 'column', 'session')),
  fixed_tenant text,
  tenant_column smallint,
  key smallint[] NOT NULL,
  columns jsonb NOT NULL,
  shape text NOT NULL DEFAULT '',
  schema_version int NOT NULL DEFAULT 0,
  state text NOT NULL CHECK (state IN ('backfilling', 'live', 'broken', 'released')),
  detail text,
  backfilled_upto text[],
  backfilled_rows bigint NOT NULL DEFAULT 0,
  captured_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  released_at timestamptz
);
CREATE UNIQUE INDEX captures_name ON headwater.captures (name) WHERE state <> 'released';
CREATE UNIQUE INDEX captures_relation ON headwater.captures (relation) WHERE state <> 'released';
GRANT SELECT ON headwater.captures TO headwater_operator;  -- it names tenants and keys

CREATE TYPE headwater.captured_column AS (
  number smallint, name text, field text, kind text, element text, labels text[], nullable boolean, large boolean);

-- Names and values --------------------------------------------------------------------------------

-- A key's text inside a stream's name: percent-encoded where the name would be malformed or
-- ambiguous, a digest where it would be too long. '%' alone, and '%sha256:', encode nothing else.
CREATE FUNCTION headwater.key_part(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN value = '' THEN '%' WHEN value !~ '[\x01-\x20\x7f%,]' THEN value ELSE
    (SELECT string_agg(CASE WHEN c.c ~ '[\x01-\x20\x7f%,]' THEN '%' || upper(lpad(to_hex(ascii(c.c)), 2, '0')) ELSE c.c END, '' ORDER BY c.n)
     FROM string_to_table(value, NULL) WITH ORDINALITY AS c(c, n)) END
$$;
CREATE FUNCTION headwater.key_within(key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN length(key) <= 200 THEN key ELSE '%sha256:' || encode(sha256(convert_to(key, 'UTF8')), 'hex') END
$$;

-- The tenant that a column names. A write must not fail for an odd name, so that becomes a digest.
CREATE FUNCTION headwater.captured_tenant(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN value IS NULL THEN 'none' WHEN value ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]*$' AND length(value) <= 100 THEN value
    ELSE 'sha256:' || encode(sha256(convert_to(value, 'UTF8')), 'hex') END
$$;
CREATE FUNCTION headwater.session_tenant() RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF coalesce(current_setting('headwater.tenant', true), '') = '' THEN
    RAISE EXCEPTION 'The table is captured for the session''s tenant, and no tenant is set.'
      USING ERRCODE = 'HW007', HINT = 'Run SELECT set_config(''headwater.tenant'', ''...'', true) first in the transaction.';
  END IF;
  RETURN headwater.captured_tenant(current_setting('headwater.tenant'));
END
$$;

CREATE FUNCTION headwater.digest_of(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT 'sha256:' || encode(sha256(convert_to(value, 'UTF8')), 'hex') $$;

-- A json value as jsonb; what jsonb cannot hold stays text.
CREATE FUNCTION headwater.json_of(value json) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN value::jsonb;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN to_jsonb(value::text);
END
$$;

-- What a table looks like. IMMUTABLE is a lie on purpose: the planner computes it once per plan, and
-- Postgres drops plans over a table's transition tables whenever the table is altered. So a
-- statement learns of an ALTER at no cost.
CREATE FUNCTION headwater.table_shape(relation oid) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT md5(coalesce((SELECT string_agg(concat_ws(' ', a.attnum, quote_ident(a.attname), a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated,
               (SELECT string_agg(quote_literal(e.enumlabel), ' ' ORDER BY e.enumlabel COLLATE "C") FROM pg_enum AS e
                WHERE e.enumtypid IN (a.atttypid, t.typelem))), ',' ORDER BY a.attnum)
              FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
              WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped), '')
         || coalesce((SELECT i.indkey::text FROM pg_index AS i WHERE i.indrelid = relation AND i.indisprimary), 'none'))
$$;

CREATE FUNCTION headwater.kind_of(type oid, OUT kind text, OUT base oid) LANGUAGE plpgsql STABLE AS $$
DECLARE
  t pg_type;
BEGIN
  base := kind_of.type;
  LOOP
    SELECT * INTO t FROM pg_type WHERE oid = base;
    EXIT WHEN t.typtype IS DISTINCT FROM 'd';
    base := t.typbasetype;
  END LOOP;
  kind := CASE
    WHEN t.typtype = 'e' THEN 'enum'
    WHEN t.typcategory = 'A' AND t.typelem <> 0 AND t.typlen = -1 THEN 'array'
    WHEN t.typname = 'citext' THEN 'text'
    WHEN t.typnamespace <> 'pg_catalog'::regnamespace THEN 'other'
    ELSE coalesce(jsonb_build_object(
      'bool', 'boolean', 'int2', 'integer', 'int4', 'integer', 'int8', 'integer', 'numeric', 'decimal', 'money', 'decimal',
      'float4', 'float', 'float8', 'float', 'timestamptz', 'moment', 'date', 'date', 'timestamp', 'iso', 'time', 'iso', 'timetz', 'iso',
      'uuid', 'uuid', 'jsonb', 'json', 'json', 'json_text', 'bytea', 'bytes', 'text', 'text', 'varchar', 'text', 'bpchar', 'text',
      'name', 'text') ->> t.typname, 'other') END;
END
$$;

CREATE FUNCTION headwater.captured_columns(c headwater.captures) RETURNS SETOF headwater.captured_column
LANGUAGE sql STABLE AS $$
  SELECT a.attnum, a.attname::text, coalesce(c.columns -> 'renamed' ->> a.attnum::text, a.attname::text), k.kind, e.kind,
         (SELECT array_agg(l.enumlabel::text ORDER BY l.enumlabel COLLATE "C") FROM pg_enum AS l WHERE l.enumtypid IN (k.base, e.base)),
         NOT a.attnotnull OR k.kind = 'float',
         k.kind IN ('json', 'json_text', 'bytes', 'array', 'other') OR (k.kind = 'text' AND (a.atttypmod = -1 OR a.atttypmod > 8192) AND k.base <> 'name'::regtype)
  FROM pg_attribute AS a JOIN LATERAL headwater.kind_of(a.atttypid) AS k ON true JOIN pg_type AS t ON t.oid = k.base
  LEFT JOIN LATERAL headwater.kind_of(t.typelem) AS e ON k.kind = 'array'
  WHERE a.attrelid = c.relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
    AND (c.columns -> 'only' = 'null' OR c.columns -> 'only' @> to_jsonb(a.attnum) OR a.attnum = ANY (c.key))
    AND NOT c.columns -> 'left_out' @> to_jsonb(a.attnum) AND NOT c.columns -> 'personal' ? a.attnum::text
  ORDER BY a.attnum
$$;

-- A column's value as jsonb_build_object takes it, over the SQL expression `at`; `within` brings it
-- within what its schema allows.
CREATE FUNCTION headwater.value_of(kind text, element text, at text, large int, within boolean) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN kind = 'array' THEN format(CASE WHEN large IS NULL THEN '' ELSE 'CASE WHEN pg_column_size(%1$s) > %2$s THEN ''[]'' ELSE ' END
      || 'CASE WHEN %1$s IS NOT NULL THEN (SELECT coalesce(jsonb_agg(%3$s), ''[]'') FROM unnest(%1$s) AS u(x)) END' || CASE WHEN large IS NULL THEN '' ELSE ' END' END,
      at, large, headwater.value_of(element, NULL, 'u.x', NULL, within))
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

-- When the data does not hold a column's value exactly, and what then stands in the metadata.
CREATE FUNCTION headwater.inexact_when(kind text, element text, at text, large int DEFAULT NULL) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE kind
    WHEN 'float' THEN format('abs(%s::float8) > 1.7e308', at)
    WHEN 'moment' THEN format('(%1$s < ''0001-01-01T00:00:00Z''::timestamptz OR %1$s > ''9999-12-31T23:59:59.999999Z''::timestamptz)', at)
    WHEN 'date' THEN format('(%1$s < ''0001-01-01''::date OR %1$s > ''9999-12-31''::date)', at)
    WHEN 'array' THEN format('(pg_column_size(%1$s) > %2$s OR array_ndims(%1$s) > 1%3$s)', at, large,
      coalesce(format(' OR EXISTS (SELECT FROM unnest(%s) AS u(x) WHERE ', at) || headwater.inexact_when(element, NULL, 'u.x') || ')', ''))
    WHEN 'json' THEN format('pg_column_size(%s) > %s', at, large)
    WHEN 'bytes' THEN format('octet_length(%s) > %s * 3 / 4', at, large)
    ELSE CASE WHEN large IS NOT NULL THEN format('octet_length(%s::text) > %s', at, large) END END
$$;
CREATE FUNCTION headwater.exact_of(kind text, at text, large int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN kind IN ('float', 'moment', 'date') THEN format('%s::text', at)
    WHEN kind = 'bytes' THEN format('''sha256:'' || encode(sha256(%s), ''hex'')', at)
    ELSE format('CASE WHEN octet_length(%1$s::text) > %2$s THEN headwater.digest_of(%1$s::text) ELSE %1$s::text END', at, least(large, 4096)) END
$$;

CREATE FUNCTION headwater.schema_of_kind(kind text, element text, labels text[], nullable boolean) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN s.schema = '{}' OR NOT nullable THEN s.schema ELSE jsonb_build_object('anyOf', jsonb_build_array(s.schema, '{"type": "null"}'::jsonb)) END
  FROM (SELECT CASE kind
    WHEN 'boolean' THEN '{"type": "boolean"}' WHEN 'integer' THEN '{"type": "integer"}' WHEN 'float' THEN '{"type": "number"}'
    WHEN 'decimal' THEN '{"type": ["number", "string"], "format": "decimal"}' WHEN 'moment' THEN '{"type": "string", "format": "date-time"}'
    WHEN 'date' THEN '{"type": "string", "format": "date"}' WHEN 'uuid' THEN '{"type": "string", "format": "uuid"}'
    WHEN 'json' THEN '{}' WHEN 'json_text' THEN '{}' WHEN 'enum' THEN jsonb_build_object('enum', to_jsonb(coalesce(labels, '{}')))
    WHEN 'array' THEN jsonb_build_object('type', 'array', 'items', headwater.schema_of_kind(element, NULL, labels, true))
    ELSE '{"type": "string"}' END) AS s(schema)
$$;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA headwater FROM PUBLIC;
RESET ROLE;
