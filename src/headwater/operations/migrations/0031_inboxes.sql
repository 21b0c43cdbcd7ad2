-- Inboxes: what another service publishes, appended here in the commit that says how far it is.
SET ROLE headwater_owner;

-- `position` is that of the last message of the source that was taken; up to `upto` nothing of the source is missing here.
-- `appended` is the position in this log of the last event that came this way. `sequence` is the place in the bus's
-- stream, which starts over with another stream. `revision` rises whenever others than the relay's batches change a row.
CREATE TABLE headwater.inboxes (
  inbox text PRIMARY KEY,
  source text NOT NULL,
  channel text NOT NULL,
  log text,
  epoch int,
  position bigint NOT NULL DEFAULT 0,
  upto bigint NOT NULL DEFAULT 0,
  appended bigint NOT NULL DEFAULT 0,
  sequence bigint NOT NULL DEFAULT 0,
  fence bigint NOT NULL DEFAULT 0,
  revision bigint NOT NULL DEFAULT 0,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((log IS NULL) = (epoch IS NULL))
) WITH (fillfactor = 10);

-- Messages that could not be appended, whole, and those that follow one of the same stream of the source.
CREATE TABLE headwater.inbox_parked (
  inbox text NOT NULL REFERENCES headwater.inboxes ON DELETE CASCADE,
  sequence bigint NOT NULL,
  position bigint NOT NULL,
  tenant text NOT NULL,
  stream text NOT NULL,
  message bytea NOT NULL,
  reason text NOT NULL,
  culprit boolean NOT NULL,
  status text NOT NULL DEFAULT 'parked' CHECK (status IN ('parked', 'discarded')),
  parked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (inbox, position, sequence)
);

ALTER TABLE headwater.inbox_parked ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.inbox_parked TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.inbox_parked FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_all ON headwater.inbox_parked TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_reads ON headwater.inbox_parked FOR SELECT TO headwater_operator USING (true);

-- The first message of a tenant, or of nobody knows which, that is parked at or before a position of the source. Strangers'
-- messages, at position 0, are none of the source's.
CREATE FUNCTION headwater.parked_upto(inboxes text[], source text, tenant text, upto bigint) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT min(p.position) FROM headwater.inbox_parked AS p JOIN headwater.inboxes AS i USING (inbox)
  WHERE i.inbox = ANY (inboxes) AND i.source = parked_upto.source AND p.tenant IN (parked_upto.tenant, '')
    AND p.status = 'parked' AND p.position BETWEEN 1 AND parked_upto.upto
$$;
REVOKE EXECUTE ON FUNCTION headwater.parked_upto FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.parked_upto TO headwater_app;

GRANT SELECT ON headwater.inboxes, headwater.inbox_parked TO headwater_app, headwater_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.inboxes, headwater.inbox_parked TO headwater_relay;
RESET ROLE;
