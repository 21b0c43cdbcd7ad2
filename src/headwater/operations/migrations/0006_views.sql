-- What the relay knows of its views: definitions, checkpoints, leases, parked events.
SET ROLE headwater_owner;

CREATE TABLE headwater.views (
  view text PRIMARY KEY,
  kind text NOT NULL,
  definition jsonb NOT NULL,
  fingerprint text NOT NULL,
  generation int NOT NULL DEFAULT 1,
  deployed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row per view; it moves in the same commit as the view's data. `revision` rises whenever
-- someone other than the relay's batches changed the view's data, so that nothing cached survives.
CREATE TABLE headwater.checkpoints (
  view text PRIMARY KEY REFERENCES headwater.views ON DELETE CASCADE,
  position bigint NOT NULL,
  epoch int NOT NULL,
  fence bigint NOT NULL DEFAULT 0,
  revision bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 10);

CREATE TABLE headwater.leases (
  name text PRIMARY KEY,
  holder text NOT NULL,
  fence bigint NOT NULL,
  expires_at timestamptz NOT NULL,
  state text NOT NULL DEFAULT 'running',
  detail text
) WITH (fillfactor = 10);

-- Events that a view has not applied. `keys` are the view's keys they belong to, NULL where they
-- cannot be told; `culprit` is false for events that only followed one for the same key. Parked ones
-- may be replayed; skipped and discarded ones are given up, and stay on record.
CREATE TABLE headwater.parked (
  view text NOT NULL REFERENCES headwater.views ON DELETE CASCADE,
  position bigint NOT NULL,
  tenant text NOT NULL,
  keys text[],
  reason text NOT NULL,
  culprit boolean NOT NULL,
  status text NOT NULL DEFAULT 'parked' CHECK (status IN ('parked', 'skipped', 'discarded')),
  parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (view, position)
);

-- Where a batch moves its view's checkpoint to: from where the batch begins, or it raises. A relay
-- whose lease another has taken finds a higher fence here, and its batch writes nothing.
CREATE FUNCTION headwater.moved(checkpoint headwater.checkpoints, after bigint, upto bigint, fence bigint, revision bigint)
RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF (checkpoint.position, checkpoint.fence, checkpoint.revision) IS DISTINCT FROM (after, fence, revision) THEN
    RAISE EXCEPTION 'The checkpoint of % is not where this batch begins.', quote_literal(checkpoint.view) USING ERRCODE = 'HW020';
  END IF;
  RETURN upto;
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.moved FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.moved TO headwater_relay;

ALTER TABLE headwater.parked ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.parked TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.parked FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_all ON headwater.parked TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_reads ON headwater.parked FOR SELECT TO headwater_operator USING (true);

GRANT SELECT ON headwater.views, headwater.checkpoints, headwater.leases, headwater.parked
  TO headwater_app, headwater_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.views, headwater.checkpoints, headwater.leases, headwater.parked
  TO headwater_relay;
RESET ROLE;
