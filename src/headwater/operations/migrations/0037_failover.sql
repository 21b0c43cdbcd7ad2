-- A standby that was promoted, or a restore, is another history: it is noticed at once, and whoever drove a view before
-- drives none of it now.
SET ROLE headwater_owner;

-- The timeline that the server writes now. What pg_control_checkpoint tells is the last checkpoint's, which after a
-- promotion may be the old one for minutes.
CREATE FUNCTION headwater.timeline() RETURNS int
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int
$$;

-- Whether this server goes on with the history that the log last ran on, as far as check_epoch has seen.
CREATE FUNCTION headwater.goes_on() RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.system_identifier = s.system_identifier AND l.timeline = headwater.timeline() FROM headwater.log AS l, pg_control_system() AS s
$$;

-- Notices that the database was restored, copied or failed over since the log last ran: a token of the old history
-- proves nothing here. Leases that were lost with its end may have carried higher fences than are known here, so all
-- grow by more than can have been lost.
CREATE OR REPLACE FUNCTION headwater.check_epoch() RETURNS int
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT headwater.goes_on() THEN
    UPDATE headwater.log AS l
       SET epoch = l.epoch + 1, system_identifier = s.system_identifier, timeline = headwater.timeline()
      FROM pg_control_system() AS s
     WHERE l.system_identifier <> s.system_identifier OR l.timeline <> headwater.timeline();
    IF FOUND THEN
      UPDATE headwater.leases SET fence = fence + 1000000, expires_at = '-infinity';
      UPDATE headwater.checkpoints SET fence = fence + 1000000;
      UPDATE headwater.inboxes SET fence = fence + 1000000;
      PERFORM setval('headwater.job_step_seq', nextval('headwater.job_step_seq') + 1000000);
    END IF;
  END IF;
  RETURN (SELECT l.epoch FROM headwater.log AS l);
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.timeline, headwater.goes_on FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.goes_on TO headwater_relay;
RESET ROLE;
