-- Alerts: how each rule stands. One process looks at a time; what is told are jobs, in the same transaction.
SET ROLE headwater_owner;

CREATE TABLE headwater.alerts (
  alert text PRIMARY KEY CHECK (alert ~ '^[a-z][a-z0-9_-]{0,62}$'),
  tenant text NOT NULL,
  since timestamptz,
  raised_at timestamptz,
  told boolean NOT NULL DEFAULT false,
  detail text,
  silenced_until timestamptz,
  looked_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);

-- What the last digest counted up to.
CREATE TABLE headwater.alert_digests (
  queue_id int PRIMARY KEY,
  settled bigint NOT NULL,
  failed bigint NOT NULL
);

ALTER TABLE headwater.alerts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.alerts TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY relay_all ON headwater.alerts TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_all ON headwater.alerts TO headwater_operator USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.alerts TO headwater_relay, headwater_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.alert_digests TO headwater_relay;
RESET ROLE;
