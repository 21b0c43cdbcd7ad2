-- Events of other versions, read by views that never leave the database.
SET ROLE headwater_owner;
ALTER TABLE headwater.event_types ADD COLUMN upcasts jsonb NOT NULL DEFAULT '{}';
COMMENT ON COLUMN headwater.event_types.upcasts IS 'The steps that lead from each earlier version to the next, for programs in any language.';

-- A field that the reader's version requires, of an event of another version.
CREATE FUNCTION headwater.required_field(value jsonb, field text, type text, schema_version int, wanted int) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  IF value IS NULL THEN
    RAISE EXCEPTION 'The event is version % of %, and cannot be read as version %: it lacks %.', schema_version, quote_literal(type), wanted, quote_literal(field)
      USING ERRCODE = 'data_exception', HINT = 'Declare how it is upcast, or deploy code that knows this version.';
  END IF;
  RETURN value;
END
$$;
GRANT EXECUTE ON FUNCTION headwater.required_field TO headwater_app, headwater_relay, headwater_operator;

-- How earlier versions are read as this one. May be told again when the steps are corrected.
CREATE FUNCTION headwater.register_upcasts(type text, schema_version int, upcasts jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.event_types AS t SET upcasts = register_upcasts.upcasts
  WHERE t.type = register_upcasts.type AND t.schema_version = register_upcasts.schema_version
    AND t.upcasts <> register_upcasts.upcasts
$$;
REVOKE EXECUTE ON FUNCTION headwater.register_upcasts FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.register_upcasts TO headwater_operator;
RESET ROLE;
