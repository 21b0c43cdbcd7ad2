-- Reading in order: the published watermark, and what holds it back.
SET ROLE headwater_owner;

CREATE FUNCTION headwater.safe_position() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT last_value - (NOT is_called)::int FROM headwater.safe $$;

-- Raises the watermark, never lowers it: two tickers may publish at once. setval is seen by all at
-- once, before this commits, so the ticker has flushed the log up to `decided` in a statement before;
-- a watermark that a crash takes back is merely published again.
CREATE FUNCTION headwater.publish(decided bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.safe', 0));
  PERFORM setval('headwater.safe', decided) FROM headwater.safe WHERE last_value < decided;
END
$$;

-- What a tick sees: L, the last position drawn, and S, the transactions that hold the sequence's lock.
-- Neither is read through a snapshot, and L is read first. S is left out where L is `known` already.
CREATE FUNCTION headwater.observe(known bigint, OUT drawn bigint, OUT holders text[])
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  drawn := coalesce(pg_sequence_last_value('headwater.position_seq'::regclass), -1);
  IF drawn > known THEN
    holders := ARRAY(
      SELECT l.virtualtransaction FROM pg_locks AS l
      WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.relation = 'headwater.position_seq'::regclass AND l.pid IS DISTINCT FROM pg_backend_pid());
  END IF;
END
$$;

-- Makes the log durable up to here by a commit of its own, and only then shows the watermark.
CREATE PROCEDURE headwater.flush_and_publish(decided bigint)
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_logical_emit_message(true, 'headwater', '');
  COMMIT;
  PERFORM headwater.publish(decided);
END
$$;

-- Events after a position, in order, for readers in plain SQL. Two statements, because the rows
-- must be read by a snapshot taken after the watermark was: under any other isolation level than
-- READ COMMITTED both would share one snapshot and events could be skipped.
CREATE FUNCTION headwater.read(
  after bigint, max_rows int DEFAULT 1000, types text[] DEFAULT NULL, tenant text DEFAULT NULL
) RETURNS SETOF headwater.events
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  upto bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'The log cannot be read in order under %.', current_setting('transaction_isolation')
      USING ERRCODE = 'HW008', HINT = 'Use READ COMMITTED for this transaction.';
  END IF;
  upto := headwater.safe_position();
  RETURN QUERY SELECT * FROM headwater.events AS e
    WHERE e.position > after AND e.position <= upto
      AND (types IS NULL OR e.type = ANY (types)) AND (read.tenant IS NULL OR e.tenant = read.tenant)
    ORDER BY e.position LIMIT max_rows;
END
$$;

-- The open transactions that hold readers back, oldest first: those that drew a position and have
-- not ended. `gid` names a prepared one.
CREATE FUNCTION headwater.appenders()
RETURNS TABLE (pid int, gid text, state text, age_seconds double precision, idle_seconds double precision,
               application_name text, login name)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT l.pid, x.gid, coalesce(a.state, CASE WHEN x.gid IS NULL THEN 'unknown' ELSE 'prepared' END),
         extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, x.prepared))::double precision,
         CASE WHEN a.state LIKE 'idle in transaction%' THEN extract(epoch FROM clock_timestamp() - a.state_change)::double precision END,
         a.application_name, coalesce(a.usename, x.owner)
  FROM pg_locks AS l
  LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
  LEFT JOIN pg_locks AS t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
    AND t.virtualtransaction = l.virtualtransaction AND t.mode = 'ExclusiveLock'
  LEFT JOIN pg_prepared_xacts AS x ON x.transaction = t.transactionid AND x.database = current_database()
  WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.relation = 'headwater.position_seq'::regclass AND l.pid IS DISTINCT FROM pg_backend_pid()
  ORDER BY 4 DESC NULLS LAST
$$;

-- Ends transactions that appended and then sat idle past the limit of headwater.log; returns them.
CREATE FUNCTION headwater.end_idle_appenders() RETURNS TABLE (pid int, idle_seconds double precision)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF NOT pg_has_role('headwater_owner', 'pg_signal_backend', 'MEMBER') THEN
    RETURN;
  END IF;
  RETURN QUERY
    SELECT ended.pid, ended.idle_seconds
    FROM (SELECT a.pid, a.idle_seconds, pg_terminate_backend(a.pid) AS done
          FROM headwater.appenders() AS a JOIN pg_roles AS r ON r.rolname = a.login, headwater.log AS l
          WHERE a.idle_seconds > l.idle_append_seconds AND NOT r.rolsuper) AS ended
    WHERE ended.done;
END
$$;

-- Notices that the database was restored, copied or failed over since the log last ran: another
-- system or timeline means another history, and a token of the old one proves nothing here.
CREATE FUNCTION headwater.check_epoch() RETURNS int
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.log AS l
     SET epoch = l.epoch + 1, system_identifier = s.system_identifier, timeline = c.timeline_id
    FROM pg_control_system() AS s, pg_control_checkpoint() AS c
   WHERE l.system_identifier <> s.system_identifier OR l.timeline <> c.timeline_id;
  SELECT epoch FROM headwater.log
$$;

REVOKE EXECUTE ON FUNCTION headwater.publish, headwater.appenders, headwater.end_idle_appenders, headwater.check_epoch,
  headwater.safe_position, headwater.read, headwater.observe FROM PUBLIC;
REVOKE EXECUTE ON PROCEDURE headwater.flush_and_publish FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE headwater.flush_and_publish TO headwater_relay, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.observe, headwater.publish, headwater.end_idle_appenders, headwater.check_epoch
  TO headwater_relay, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.safe_position, headwater.read, headwater.appenders
  TO headwater_app, headwater_relay, headwater_operator;
RESET ROLE;
