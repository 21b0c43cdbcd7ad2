-- Views that open what is sealed: which of their rows hold text of whom, so that they are found again.
SET ROLE headwater_owner;

-- A row is registered before it is written, under the key that sealed the text. `key` is a document's key; of a feed,
-- the event's position.
CREATE TABLE headwater.opened (
  key_id uuid NOT NULL,
  view text NOT NULL,
  generation int NOT NULL,
  tenant text NOT NULL,
  key text NOT NULL,
  PRIMARY KEY (key_id, view, generation, key)
);
ALTER TABLE headwater.opened ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.opened TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY relay_all ON headwater.opened TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_reads ON headwater.opened FOR SELECT TO headwater_operator USING (true);
GRANT SELECT, DELETE ON headwater.opened TO headwater_relay;
GRANT SELECT ON headwater.opened TO headwater_operator;

-- Who registers holds the lock until its transaction ends, and who destroys a key waits for it. So a row is either
-- registered when the key goes, and found, or it is refused here, and read again without the key.
CREATE FUNCTION headwater.register_opened(view text, generation int, key_ids uuid[], tenants text[], keys text[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('headwater.forget', 0));
  IF EXISTS (SELECT FROM headwater.subject_keys AS k WHERE k.key_id = ANY (register_opened.key_ids) AND k.wrapped IS NULL) THEN
    RAISE EXCEPTION 'A person was forgotten while what is of them was on its way into a view.'
      USING ERRCODE = 'HW060', HINT = 'It is read again by itself.';
  END IF;
  INSERT INTO headwater.opened (key_id, view, generation, tenant, key)
  SELECT o.key_id, register_opened.view, register_opened.generation, o.tenant, o.key
  FROM unnest(register_opened.key_ids, register_opened.tenants, register_opened.keys) AS o(key_id, tenant, key)
  ON CONFLICT DO NOTHING;
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.register_opened FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.register_opened TO headwater_relay;

-- The same as before, in a form that Postgres matches in a seventh of the time: counted repetitions are what cost.
CREATE OR REPLACE FUNCTION headwater.is_sealed(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT value ~ '^hw1\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$' AND substr(value, 27, 1) = '.' AND length(value) >= 65
$$;
RESET ROLE;
