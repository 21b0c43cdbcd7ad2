-- What leaves: alerts, and events for other people's endpoints.
SET ROLE headwater_owner;

-- Alerts: how each rule stands. One process looks at a time; what is told are jobs, in the same transaction.
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

-- Webhooks: endpoints of other people that are sent a tenant's events.
--
-- An endpoint has a position, up to which its events are pending or delivered. A pending row goes when its event
-- has been taken. Jobs carry the endpoint's generation: those of an earlier one do nothing.
CREATE TABLE headwater.webhook_endpoints (
  endpoint text PRIMARY KEY CHECK (endpoint ~ '^[a-z][a-z0-9_-]{0,62}$'),
  tenant text NOT NULL,
  url text NOT NULL,
  types text[],
  secret text NOT NULL,
  old_secret text,
  old_secret_until timestamptz,
  private boolean NOT NULL DEFAULT false,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'parked')),
  detail text,
  failing_since timestamptz,
  generation int NOT NULL DEFAULT 1,
  position bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

CREATE TABLE headwater.webhook_pending (
  endpoint text NOT NULL REFERENCES headwater.webhook_endpoints ON DELETE CASCADE,
  position bigint NOT NULL,
  generation int NOT NULL,
  PRIMARY KEY (endpoint, position)
);

ALTER TABLE headwater.webhook_endpoints ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.webhook_endpoints TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY relay_all ON headwater.webhook_endpoints TO headwater_relay USING (true) WITH CHECK (true);
CREATE POLICY operator_all ON headwater.webhook_endpoints TO headwater_operator USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE ON headwater.webhook_endpoints TO headwater_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.webhook_endpoints TO headwater_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.webhook_pending TO headwater_relay, headwater_operator;
RESET ROLE;
