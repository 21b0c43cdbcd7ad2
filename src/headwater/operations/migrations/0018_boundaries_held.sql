-- Keys claimed anew, and decisions that hold what they saw in one order.
SET ROLE headwater_owner;

-- A key whose time is over and that is claimed anew has no answer yet: the one it had goes.
CREATE OR REPLACE FUNCTION headwater.claim_key(tenant text, key text, request_hash bytea)
RETURNS TABLE (state text, positions bigint[], versions int[])
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  first_ headwater.idempotency;
BEGIN
  IF claim_key.key !~ '^[\x20-\x7e]+$' OR length(claim_key.key) > 255 THEN
    RETURN QUERY SELECT 'malformed', NULL::bigint[], NULL::int[];
    RETURN;
  END IF;
  LOOP
    INSERT INTO headwater.idempotency AS i (tenant, key, request_hash, expires_at)
    SELECT claim_key.tenant, claim_key.key, claim_key.request_hash,
           clock_timestamp() + make_interval(secs => l.idempotency_seconds)
    FROM headwater.log AS l
    ON CONFLICT (tenant, key) DO UPDATE
      SET request_hash = excluded.request_hash, expires_at = excluded.expires_at, positions = NULL, versions = NULL, answer = NULL
      WHERE i.expires_at < clock_timestamp();
    IF FOUND THEN
      RETURN QUERY SELECT 'new', NULL::bigint[], NULL::int[];
      RETURN;
    END IF;
    SELECT * INTO first_ FROM headwater.idempotency AS i
     WHERE i.tenant = claim_key.tenant AND i.key = claim_key.key;
    CONTINUE WHEN NOT FOUND;  -- purged in between
    RETURN QUERY SELECT CASE WHEN first_.request_hash = claim_key.request_hash THEN 'duplicate' ELSE 'reused' END,
                        first_.positions, first_.versions;
    RETURN;
  END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION headwater.require(streams jsonb DEFAULT '{}', keys jsonb DEFAULT '{}', tenant text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(require.tenant);
  wrong text;
  changed record;
BEGIN
  PERFORM headwater.check_tenant(whose);
  IF jsonb_typeof(require.streams) IS DISTINCT FROM 'object' OR jsonb_typeof(require.keys) IS DISTINCT FROM 'object'
     OR EXISTS (
       SELECT FROM jsonb_array_elements(jsonb_build_array(require.streams, require.keys)) AS o(seen)
       CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(o.seen) WHEN 'object' THEN o.seen ELSE '{}' END) AS v
       WHERE v.value::text !~ '^[0-9]{1,9}$') THEN
    RAISE EXCEPTION 'What a decision saw is not two objects of names and versions.'
      USING ERRCODE = 'HW004', HINT = 'Write SELECT headwater.require(''{"order/42": 3}'', ''{"mail:a@b.example": 0}'').';
  END IF;
  IF (SELECT count(*) FROM jsonb_object_keys(require.streams)) + (SELECT count(*) FROM jsonb_object_keys(require.keys)) > 1000 THEN
    RAISE EXCEPTION 'A decision depends on more than 1,000 streams and keys.'
      USING ERRCODE = 'HW009', HINT = 'Decide on a key that they share.';
  END IF;
  SELECT k INTO wrong FROM jsonb_object_keys(require.keys) AS k WHERE length(k) NOT BETWEEN 1 AND 255 LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'A key has more than 255 characters, or none.' USING ERRCODE = 'HW009', HINT = headwater.hint_of('HW009');
  END IF;
  SELECT s INTO wrong FROM jsonb_object_keys(require.streams) AS s
  WHERE length(s) > 255 OR s !~ '^[a-z][a-z0-9_-]*/[^\x01-\x20\x7f]+$' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'The stream name % is malformed.', quote_literal(left(wrong, 300)) USING ERRCODE = 'HW005', HINT = headwater.hint_of('HW005');
  END IF;

  -- What has no row yet gets one, so that there is something to hold; what has one is locked, and not
  -- written. Each kind in one statement, so that new and known names are taken in one order: an append
  -- that carries the same keys takes them in the same.
  INSERT INTO headwater.keys AS n (tenant, key, version)
  SELECT whose, k, 0 FROM jsonb_object_keys(require.keys) AS k ORDER BY k
  ON CONFLICT (tenant, key) DO UPDATE SET version = n.version WHERE false;
  INSERT INTO headwater.streams AS n (tenant, stream, version, first_position)
  SELECT whose, s, 0, (SELECT greatest(p.last_value - 32, 0) FROM headwater.position_seq AS p)
  FROM jsonb_object_keys(require.streams) AS s ORDER BY s
  ON CONFLICT (tenant, stream) DO UPDATE SET version = n.version WHERE false;

  SELECT * INTO changed FROM (
    SELECT 'key' AS kind, n.key AS name, n.version AS actual, (require.keys->>n.key)::int AS expected
    FROM headwater.keys AS n WHERE n.tenant = whose AND n.key = ANY (ARRAY(SELECT jsonb_object_keys(require.keys)))
    UNION ALL
    SELECT 'stream', n.stream, n.version, (require.streams->>n.stream)::int
    FROM headwater.streams AS n WHERE n.tenant = whose AND n.stream = ANY (ARRAY(SELECT jsonb_object_keys(require.streams)))) AS c
  WHERE c.actual <> c.expected ORDER BY c.kind, c.name LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'The % % is at version %, not %.', changed.kind, quote_literal(changed.name), changed.actual, changed.expected
      USING ERRCODE = 'HW012', HINT = 'Look again, decide again, and require the versions that you then saw.',
            DETAIL = jsonb_build_object(changed.kind, changed.name, 'actual', changed.actual, 'expected', changed.expected);
  END IF;
END
$$;
RESET ROLE;
