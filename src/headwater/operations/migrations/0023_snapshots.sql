-- States of folds over streams, so that long streams load fast. Never the truth: each may be deleted at any
-- time, and one of another definition is never read.
SET ROLE headwater_owner;
CREATE TABLE headwater.snapshots (
  tenant text NOT NULL,
  stream text NOT NULL,
  fingerprint bytea NOT NULL,
  version int NOT NULL CHECK (version > 0),
  position bigint NOT NULL,
  state jsonb NOT NULL,
  made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant, stream, fingerprint)
);
CREATE INDEX snapshots_made_at ON headwater.snapshots (made_at);
COMMENT ON TABLE headwater.snapshots IS 'May be emptied at any time: what is missed is made again.';

ALTER TABLE headwater.snapshots ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.snapshots TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_own ON headwater.snapshots TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)))
  WITH CHECK (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY operator_all ON headwater.snapshots TO headwater_operator USING (true) WITH CHECK (true);
CREATE POLICY relay_reads ON headwater.snapshots FOR SELECT TO headwater_relay USING (true);
GRANT SELECT, INSERT, UPDATE ON headwater.snapshots TO headwater_app;
GRANT SELECT ON headwater.snapshots TO headwater_relay;
GRANT SELECT, DELETE ON headwater.snapshots TO headwater_operator;

-- Forgets what nobody has made anew for a month; the relay calls it from time to time.
CREATE FUNCTION headwater.purge_snapshots() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (DELETE FROM headwater.snapshots AS s WHERE s.made_at < clock_timestamp() - interval '30 days' RETURNING 1)
  SELECT count(*) FROM gone
$$;
REVOKE EXECUTE ON FUNCTION headwater.purge_snapshots FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.purge_snapshots TO headwater_relay, headwater_operator;
RESET ROLE;
