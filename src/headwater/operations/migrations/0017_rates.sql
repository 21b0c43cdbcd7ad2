-- How often callers of an application may come, counted in the database: the generic cell rate algorithm.
-- A key is due at a moment, which each call moves on by an interval, and may run ahead by a burst. Unlogged:
-- after a crash everyone begins anew.
SET ROLE headwater_owner;

CREATE UNLOGGED TABLE headwater.rates (
  key text PRIMARY KEY,
  due double precision NOT NULL,
  granted int NOT NULL,
  every double precision NOT NULL,
  burst int NOT NULL,
  wanted int NOT NULL
) WITH (fillfactor = 50);

-- Counts calls: `wanted` by each key, of which `granted` may go on; `due_seconds` is how far the key runs
-- ahead. Keys are distinct, and taken in sorted order.
CREATE FUNCTION headwater.take_rates(keys text[], every double precision[], bursts int[], wanted int[])
RETURNS TABLE (key text, granted int, due_seconds double precision)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.rates AS r (key, due, granted, every, burst, wanted)
  SELECT u.key, extract(epoch FROM clock_timestamp()) + u.every * least(u.wanted, u.burst), least(u.wanted, u.burst), u.every, u.burst, u.wanted
  FROM unnest(take_rates.keys, take_rates.every, take_rates.bursts, take_rates.wanted) AS u(key, every, burst, wanted)
  WHERE u.every > 0 AND u.burst > 0 AND u.wanted > 0 AND length(u.key) <= 500
  ORDER BY u.key
  ON CONFLICT (key) DO UPDATE SET
    every = excluded.every, burst = excluded.burst, wanted = excluded.wanted,
    granted = greatest(0, least(excluded.wanted, floor(excluded.burst - greatest(r.due - extract(epoch FROM clock_timestamp()), 0) / excluded.every + 1e-6)))::int,
    due = greatest(r.due, extract(epoch FROM clock_timestamp()))
        + excluded.every * greatest(0, least(excluded.wanted, floor(excluded.burst - greatest(r.due - extract(epoch FROM clock_timestamp()), 0) / excluded.every + 1e-6)))
  RETURNING r.key, r.granted, greatest(r.due - extract(epoch FROM clock_timestamp()), 0)
$$;

-- Forgets keys that are due no more; the relay calls it every hour.
CREATE FUNCTION headwater.purge_rates() RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH gone AS (DELETE FROM headwater.rates AS r WHERE r.due < extract(epoch FROM clock_timestamp()) - 60 RETURNING 1)
  SELECT count(*) FROM gone
$$;

REVOKE EXECUTE ON FUNCTION headwater.take_rates, headwater.purge_rates FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.take_rates TO headwater_app, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.purge_rates TO headwater_relay, headwater_operator;
RESET ROLE;
