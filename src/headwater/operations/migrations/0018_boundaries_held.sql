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
RESET ROLE;
