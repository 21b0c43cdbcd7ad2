-- Personal data: sealed by a key of each person, which is destroyed when the person is forgotten.
SET ROLE headwater_owner;

-- The keys, each wrapped by a master key that is not in the database. A destroyed one has no wrapped key.
CREATE TABLE headwater.subject_keys (
  tenant text NOT NULL,
  subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
  key_id uuid NOT NULL UNIQUE,
  wrapped bytea,
  master text NOT NULL,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  forgotten_at timestamptz,
  PRIMARY KEY (tenant, subject),
  CHECK ((wrapped IS NULL) = (forgotten_at IS NOT NULL))
);
-- Requests to be forgotten, and what was done. Subjects are identifiers, and say nothing of the person.
CREATE TABLE headwater.erasures (
  id uuid PRIMARY KEY,
  tenant text NOT NULL,
  subject text NOT NULL,
  reason text,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  due_at timestamptz NOT NULL,
  done_at timestamptz,
  certificate jsonb,
  UNIQUE (tenant, subject)
);

ALTER TABLE headwater.subject_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.subject_keys TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_own ON headwater.subject_keys TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)))
  WITH CHECK (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY operator_all ON headwater.subject_keys TO headwater_operator USING (true) WITH CHECK (true);
ALTER TABLE headwater.erasures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.erasures TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY operator_all ON headwater.erasures TO headwater_operator USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON headwater.subject_keys TO headwater_app;
GRANT SELECT, INSERT, UPDATE ON headwater.subject_keys, headwater.erasures TO headwater_operator;

-- What `append` takes in a personal field. That the text says what it should cannot be seen from here.
CREATE FUNCTION headwater.is_sealed(value text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT value ~ '^hw1\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{38,}$' $$;

ALTER FUNCTION headwater.compile_condition(jsonb, text, text, int) RENAME TO compile_plain_condition;
CREATE FUNCTION headwater.compile_condition(schema jsonb, at text, as_text text, depth int DEFAULT 0) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  IF schema ->> 'format' IS DISTINCT FROM 'sealed' THEN
    RETURN headwater.compile_plain_condition(schema, at, as_text, depth);
  END IF;
  RETURN format('(jsonb_typeof(%s) = ''string'' AND headwater.is_sealed(%s))', at, as_text);
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.compile_condition FROM PUBLIC;
RESET ROLE;
