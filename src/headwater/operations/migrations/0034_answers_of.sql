-- Kept answers that tell of a person, so that they are found when the person is forgotten.
SET ROLE headwater_owner;

CREATE TABLE headwater.answers_of (
  key_id uuid NOT NULL,
  tenant text NOT NULL,
  key text NOT NULL,
  PRIMARY KEY (key_id, tenant, key),
  FOREIGN KEY (tenant, key) REFERENCES headwater.idempotency ON DELETE CASCADE
);
CREATE INDEX answers_of_answer ON headwater.answers_of (tenant, key);
ALTER TABLE headwater.answers_of ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.answers_of TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY operator_reads ON headwater.answers_of FOR SELECT TO headwater_operator USING (true);
GRANT SELECT ON headwater.answers_of TO headwater_operator;

-- In the transaction of the answer. As headwater.register_opened: whose key is gone by now is refused.
CREATE FUNCTION headwater.answer_is_of(key text, key_ids uuid[], tenant text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('headwater.forget', 0));
  IF EXISTS (SELECT FROM headwater.subject_keys AS k WHERE k.key_id = ANY (answer_is_of.key_ids) AND k.wrapped IS NULL) THEN
    RAISE EXCEPTION 'A person of whom the answer tells has been forgotten meanwhile.'
      USING ERRCODE = 'HW060', HINT = 'Send the request again.';
  END IF;
  INSERT INTO headwater.answers_of (key_id, tenant, key)
  SELECT k, headwater.acting_tenant(answer_is_of.tenant), answer_is_of.key FROM unnest(answer_is_of.key_ids) AS k
  ON CONFLICT DO NOTHING;
END
$$;

-- Puts another answer in the place of those that tell of a person; how many.
CREATE FUNCTION headwater.forget_answers(key_id uuid, answer bytea) RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (DELETE FROM headwater.answers_of AS o WHERE o.key_id = forget_answers.key_id RETURNING o.tenant, o.key),
  said AS (UPDATE headwater.idempotency AS i SET answer = forget_answers.answer FROM gone AS g
           WHERE i.tenant = g.tenant AND i.key = g.key RETURNING 1)
  SELECT count(*)::int FROM said
$$;

-- Writes the table anew, without the bytes of rows that were overwritten; false where it is too large for that.
CREATE FUNCTION headwater.rewrite_answers(most_bytes bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF pg_total_relation_size('headwater.idempotency') > most_bytes THEN
    RETURN false;
  END IF;
  CLUSTER headwater.idempotency USING idempotency_pkey;
  RETURN true;
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.answer_is_of, headwater.forget_answers, headwater.rewrite_answers FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.answer_is_of TO headwater_app, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.forget_answers, headwater.rewrite_answers TO headwater_operator;
RESET ROLE;
