-- Who may do what. Four roles, none of them superuser, none bypassing row-level security:
--   headwater_owner     owns every table and function; nobody logs in as it
--   headwater_app       appends facts and reads views, for one tenant at a time
--   headwater_relay     reads all tenants' events and maintains views
--   headwater_operator  registers types, deploys views, appends for any tenant
-- Logins are members of these; Headwater picks one per connection with SET ROLE.
DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['headwater_owner', 'headwater_app', 'headwater_relay', 'headwater_operator'] LOOP
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = wanted) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE', wanted);
    END IF;
  END LOOP;
  -- The owner names and ends transactions that hold readers back; without these two
  -- memberships `headwater doctor` says what is missing and why.
  BEGIN
    GRANT pg_read_all_stats, pg_signal_backend TO headwater_owner;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'pg_read_all_stats and pg_signal_backend could not be granted to headwater_owner';
  END;
  -- On a server whose administrator is no superuser, creating objects for a role needs membership.
  IF NOT pg_has_role(current_user, 'headwater_owner', 'MEMBER') THEN
    EXECUTE format('GRANT headwater_owner TO %I', current_user);
  END IF;
  EXECUTE format('GRANT CREATE ON DATABASE %I TO headwater_owner', current_database());
END
$$;

CREATE SCHEMA IF NOT EXISTS headwater AUTHORIZATION headwater_owner;
CREATE SCHEMA IF NOT EXISTS headwater_checks AUTHORIZATION headwater_owner;
CREATE SCHEMA IF NOT EXISTS headwater_views AUTHORIZATION headwater_owner;

SET ROLE headwater_owner;
GRANT USAGE ON SCHEMA headwater TO headwater_app, headwater_relay, headwater_operator;
GRANT USAGE ON SCHEMA headwater_views TO headwater_app, headwater_operator;
GRANT USAGE, CREATE ON SCHEMA headwater_views TO headwater_relay;

CREATE TABLE IF NOT EXISTS headwater.migrations (
  number int PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT ON headwater.migrations TO headwater_app, headwater_relay, headwater_operator;
RESET ROLE;
