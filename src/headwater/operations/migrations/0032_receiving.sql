-- Receiving in one statement: the events of one tenant, each a group of its own, and the inbox's move. Where any is refused,
-- nothing is done, and the detail says which and why.
SET ROLE headwater_owner;
CREATE FUNCTION headwater.receive(
  inbox text, fence bigint, revision bigint, log text, epoch int, "position" bigint, upto bigint, sequence bigint,
  tenant text, streams text[], types text[], data jsonb[], groups int[], metadata jsonb[], keys jsonb[],
  occurred_at timestamptz[], schema_versions int[]
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  done record;
BEGIN
  PERFORM set_config('headwater.tenant', receive.tenant, true);
  SELECT a.outcomes, a.positions[cardinality(a.positions)] AS last INTO done
  FROM headwater.append_groups(receive.streams, receive.types, receive.data, receive.groups, NULL, receive.metadata, NULL,
    receive.keys, receive.occurred_at, receive.schema_versions, receive.tenant) AS a;
  IF done.outcomes <> '[]' THEN
    RAISE EXCEPTION 'Messages cannot be appended.' USING ERRCODE = 'HW061', DETAIL = done.outcomes;
  END IF;
  UPDATE headwater.inboxes AS i
  SET log = receive.log, epoch = receive.epoch, position = receive.position, upto = receive.upto, sequence = receive.sequence,
      appended = greatest(i.appended, done.last), updated_at = clock_timestamp()
  WHERE i.inbox = receive.inbox AND i.fence = receive.fence AND i.revision = receive.revision;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'Another relay drives %, or it was changed meanwhile.', quote_literal(receive.inbox) USING ERRCODE = 'HW020';
  END IF;
  RETURN done.last;
END
$$;
REVOKE EXECUTE ON FUNCTION headwater.receive FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.receive TO headwater_relay;
RESET ROLE;
