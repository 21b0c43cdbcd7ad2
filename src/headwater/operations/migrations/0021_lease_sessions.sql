-- A lease is over when its time is, or as soon as the session that renews it is gone: a process that was
-- killed need not be waited for. Fences keep what is correct; this only decides how soon another takes over.
SET ROLE headwater_owner;
ALTER TABLE headwater.leases ADD COLUMN session int;

CREATE FUNCTION headwater.is_held(lease headwater.leases) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT (lease).expires_at > clock_timestamp()
     AND ((lease).session IS NULL OR EXISTS (SELECT FROM pg_stat_get_activity((lease).session)))
$$;

-- How a view is: what its holder said, or that it was found stale and let go; NULL while nobody drives it.
CREATE FUNCTION headwater.state_of(lease headwater.leases) RETURNS text
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN (lease).state = 'stale' OR headwater.is_held(lease) THEN (lease).state END
$$;

REVOKE ALL ON FUNCTION headwater.is_held, headwater.state_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.is_held, headwater.state_of
  TO headwater_app, headwater_relay, headwater_operator;
COMMENT ON COLUMN headwater.leases.session IS 'The backend that took or renewed it last.';
RESET ROLE;
