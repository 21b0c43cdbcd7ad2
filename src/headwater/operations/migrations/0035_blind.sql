-- Blind indexes: keyed hashes of personal text among the keys of events, which go with the person.
SET ROLE headwater_owner;

-- Takes the keyed hashes out of the events that hold what a person's key sealed, and out of what is found by them; how
-- many events had some. Nothing else of an event is ever changed, and this is of no effect on what it says.
CREATE FUNCTION headwater.forget_blind(whose text, prefix text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  concerned bigint[];
BEGIN
  SELECT coalesce(array_agg(e.position), '{}') INTO concerned FROM headwater.events AS e
  WHERE e.tenant = whose AND e.keys IS NOT NULL AND strpos(e.data::text, prefix) > 0
    AND EXISTS (SELECT FROM unnest(e.keys) AS k(key) WHERE starts_with(k.key, 'blind:'));
  DELETE FROM headwater.key_events AS k
  WHERE k.tenant = whose AND k.position = ANY (concerned) AND starts_with(k.key, 'blind:');
  UPDATE headwater.events AS e
  SET keys = ARRAY(SELECT k.key FROM unnest(e.keys) AS k(key) WHERE NOT starts_with(k.key, 'blind:'))
  WHERE e.tenant = whose AND e.position = ANY (concerned);
  DELETE FROM headwater.keys AS n
  WHERE n.tenant = whose AND starts_with(n.key, 'blind:')
    AND NOT EXISTS (SELECT FROM headwater.key_events AS k WHERE k.tenant = n.tenant AND k.key = n.key);
  RETURN cardinality(concerned);
END
$$;

CREATE FUNCTION headwater.blind_left(whose text, prefix text) RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT count(*)::int FROM headwater.events AS e
  WHERE e.tenant = whose AND e.keys IS NOT NULL AND strpos(e.data::text, prefix) > 0
    AND EXISTS (SELECT FROM unnest(e.keys) AS k(key) WHERE starts_with(k.key, 'blind:'))
$$;
REVOKE EXECUTE ON FUNCTION headwater.forget_blind, headwater.blind_left FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.forget_blind, headwater.blind_left TO headwater_operator;
RESET ROLE;
