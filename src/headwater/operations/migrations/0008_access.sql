-- What the HTTP entrance needs of the database: who may enter, who is present on a channel, and
-- appends in which each event brings its own idempotency key.
SET ROLE headwater_owner;

-- Tokens ------------------------------------------------------------------------------------------

-- A token opens one tenant; a token of the scope `operate` opens none, and sees operational pages only.
-- The secret has 256 random bits, so a plain SHA-256 of it is enough: nothing can be guessed.
CREATE TABLE headwater.access_tokens (
  id text PRIMARY KEY CHECK (id ~ '^[0-9a-z]{12}$'),
  tenant text CHECK (tenant ~ '^[A-Za-z0-9][A-Za-z0-9_.:-]*$' AND length(tenant) <= 100),
  scopes text[] NOT NULL CHECK (scopes <> '{}' AND scopes <@ ARRAY['append', 'read', 'operate']),
  hash bytea NOT NULL CHECK (length(hash) = 32),
  name text NOT NULL CHECK (length(name) <= 100),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  CHECK ((tenant IS NULL) = ('operate' = ANY (scopes)) AND ('operate' <> ALL (scopes) OR cardinality(scopes) = 1))
);
ALTER TABLE headwater.access_tokens ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.access_tokens TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY operator_all ON headwater.access_tokens TO headwater_operator USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON headwater.access_tokens TO headwater_operator;

-- What a token opens, for the application's role, which cannot see the table. Notes the use, at most
-- once a minute. The hash is of no use to whoever reads it.
CREATE FUNCTION headwater.access_token(token_id text)
RETURNS TABLE (tenant text, scopes text[], hash bytea, expired boolean, revoked boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  UPDATE headwater.access_tokens AS t SET last_used_at = clock_timestamp()
   WHERE t.id = access_token.token_id AND t.revoked_at IS NULL
     AND coalesce(t.last_used_at, '-infinity') < clock_timestamp() - interval '1 minute';
  SELECT t.tenant, t.scopes, t.hash, coalesce(t.expires_at <= clock_timestamp(), false), t.revoked_at IS NOT NULL
  FROM headwater.access_tokens AS t WHERE t.id = access_token.token_id
$$;

-- Tickets: for browsers, which cannot send a header with EventSource or WebSocket. Each opens one
-- connection, soon. A crash may lose them.
CREATE UNLOGGED TABLE headwater.tickets (
  hash bytea PRIMARY KEY,
  tenant text NOT NULL,
  expires_at timestamptz NOT NULL
);
ALTER TABLE headwater.tickets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.tickets TO headwater_owner USING (true) WITH CHECK (true);

CREATE FUNCTION headwater.issue_ticket(hash bytea, tenant text, seconds int) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.tickets AS t WHERE t.expires_at < clock_timestamp();
  INSERT INTO headwater.tickets (hash, tenant, expires_at)
  VALUES (issue_ticket.hash, issue_ticket.tenant, clock_timestamp() + make_interval(secs => issue_ticket.seconds))
$$;

CREATE FUNCTION headwater.redeem_ticket(hash bytea) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.tickets AS t
   WHERE t.hash = redeem_ticket.hash RETURNING CASE WHEN t.expires_at > clock_timestamp() THEN t.tenant END
$$;

-- Presence ----------------------------------------------------------------------------------------

-- Each process renews one row; whoever it holds is present as long as that row is. A process that is
-- killed takes its members with it when the row expires.
CREATE UNLOGGED TABLE headwater.presence_holders (
  holder text PRIMARY KEY,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE headwater.presence (
  tenant text NOT NULL,
  channel text NOT NULL,
  connection text NOT NULL,
  member text NOT NULL,
  since timestamptz NOT NULL DEFAULT clock_timestamp(),
  holder text NOT NULL REFERENCES headwater.presence_holders ON DELETE CASCADE,
  PRIMARY KEY (tenant, channel, connection)
);
CREATE INDEX presence_holder ON headwater.presence (holder);
ALTER TABLE headwater.presence ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.presence TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_all ON headwater.presence TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)))
  WITH CHECK (tenant = (SELECT current_setting('headwater.tenant', true)));
GRANT SELECT, INSERT, DELETE ON headwater.presence TO headwater_app;
GRANT SELECT ON headwater.presence_holders TO headwater_app;

CREATE FUNCTION headwater.renew_presence(holder text, seconds int) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO headwater.presence_holders AS h (holder, expires_at)
  VALUES (renew_presence.holder, clock_timestamp() + make_interval(secs => renew_presence.seconds))
  ON CONFLICT (holder) DO UPDATE SET expires_at = excluded.expires_at;
  DELETE FROM headwater.presence_holders AS h WHERE h.expires_at < clock_timestamp() - interval '1 minute'
$$;

CREATE FUNCTION headwater.end_presence(holder text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  DELETE FROM headwater.presence_holders AS h WHERE h.holder = end_presence.holder
$$;

-- Appends -----------------------------------------------------------------------------------------

-- Appends the events whose idempotency key is new, all or nothing, in one transaction; the others are
-- answered with their first result. Keys are claimed in sorted order, as everywhere, so that two
-- callers never wait for each other; the request's hash is that of append_groups for a group of one.
CREATE FUNCTION headwater.append_once(
  once text[], streams text[], types text[], data jsonb[], expected_versions int[] DEFAULT NULL,
  metadata jsonb[] DEFAULT NULL, ids uuid[] DEFAULT NULL, occurred_at timestamptz[] DEFAULT NULL,
  schema_versions int[] DEFAULT NULL, tenant text DEFAULT NULL
) RETURNS TABLE (positions bigint[], versions int[], duplicates boolean[], token text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
  whose text := headwater.acting_tenant(append_once.tenant);
  hashes bytea[];
  firsts boolean[];
  claimed text[];
  fresh int[];
  reused text;
  done record;
  outcome jsonb;
BEGIN
  SELECT array_agg(headwater.request_hash(jsonb_build_array(jsonb_build_array(
           r.stream, r.type, r.data, coalesce(r.schema_version, 1), r.occurred_at, NULL::jsonb, r.expected_version))) ORDER BY r.ord),
         array_agg(r.first_ ORDER BY r.ord)
    INTO hashes, firsts
  FROM (SELECT u.*, row_number() OVER (PARTITION BY u.key ORDER BY u.ord) = 1 AS first_
        FROM unnest(append_once.once, append_once.streams, append_once.types, append_once.data, append_once.expected_versions,
                    append_once.occurred_at, append_once.schema_versions)
             WITH ORDINALITY AS u(key, stream, type, data, expected_version, occurred_at, schema_version, ord)) AS r;

  WITH claiming AS (
    INSERT INTO headwater.idempotency AS i (tenant, key, request_hash, expires_at)
    SELECT whose, u.key, u.hash, clock_timestamp() + make_interval(secs => l.idempotency_seconds)
    FROM unnest(append_once.once, hashes, firsts) AS u(key, hash, first_), headwater.log AS l
    WHERE u.first_ ORDER BY u.key
    ON CONFLICT (tenant, key) DO UPDATE
      SET request_hash = excluded.request_hash, expires_at = excluded.expires_at, positions = NULL, versions = NULL
      WHERE i.expires_at < clock_timestamp()
    RETURNING i.key
  )
  SELECT coalesce(array_agg(c.key), '{}') INTO claimed FROM claiming AS c;

  SELECT u.key INTO reused
  FROM unnest(append_once.once, hashes) AS u(key, hash)
  LEFT JOIN headwater.idempotency AS i ON i.tenant = whose AND i.key = u.key
  WHERE i.request_hash IS DISTINCT FROM u.hash LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'The idempotency key % was used for another request.', quote_literal(reused)
      USING ERRCODE = 'HW002', HINT = headwater.hint_of('HW002');
  END IF;

  SELECT array_agg(u.ord::int ORDER BY u.ord) INTO fresh
  FROM unnest(append_once.once, firsts) WITH ORDINALITY AS u(key, first_, ord)
  JOIN unnest(claimed) AS c(key) ON c.key = u.key WHERE u.first_;

  IF fresh IS NOT NULL THEN
    SELECT g.* INTO done
    FROM (SELECT array_agg(append_once.streams[f] ORDER BY f) AS streams, array_agg(append_once.types[f] ORDER BY f) AS types,
                 array_agg(append_once.data[f] ORDER BY f) AS data, array_agg(append_once.expected_versions[f] ORDER BY f) AS expected_versions,
                 array_agg(append_once.metadata[f] ORDER BY f) AS metadata, array_agg(append_once.ids[f] ORDER BY f) AS ids,
                 array_agg(append_once.occurred_at[f] ORDER BY f) AS occurred_at,
                 array_agg(append_once.schema_versions[f] ORDER BY f) AS schema_versions
          FROM unnest(fresh) AS f) AS a
    CROSS JOIN LATERAL headwater.append_groups(a.streams, a.types, a.data, NULL, a.expected_versions, a.metadata, a.ids, NULL,
      a.occurred_at, a.schema_versions, whose, '{}') AS g;
    outcome := done.outcomes->0;
    IF outcome IS NOT NULL THEN
      RAISE EXCEPTION '%', substr(outcome->>'refusal', 6)
        USING ERRCODE = left(outcome->>'refusal', 5), HINT = headwater.hint_of(left(outcome->>'refusal', 5)),
              DETAIL = (outcome - '{g,refusal,positions,versions}'::text[])::text;
    END IF;
    UPDATE headwater.idempotency AS i SET positions = ARRAY[d.position], versions = ARRAY[d.version]
    FROM unnest(fresh, done.positions, done.versions) AS d(ord, position, version)
    WHERE i.tenant = whose AND i.key = append_once.once[d.ord];
  END IF;

  SELECT array_agg(i.positions[1] ORDER BY u.ord), array_agg(i.versions[1] ORDER BY u.ord),
         array_agg(u.ord <> ALL (coalesce(fresh, '{}')) ORDER BY u.ord)
    INTO positions, versions, duplicates
  FROM unnest(append_once.once) WITH ORDINALITY AS u(key, ord)
  JOIN headwater.idempotency AS i ON i.tenant = whose AND i.key = u.key;
  SELECT l.log_id || '.' || l.epoch || '.' || (SELECT max(p) FROM unnest(positions) AS p) INTO token FROM headwater.log AS l;
  RETURN NEXT;
END
$$;

REVOKE EXECUTE ON FUNCTION headwater.access_token, headwater.issue_ticket, headwater.redeem_ticket,
  headwater.renew_presence, headwater.end_presence, headwater.append_once FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.access_token, headwater.issue_ticket, headwater.redeem_ticket,
  headwater.renew_presence, headwater.end_presence TO headwater_app, headwater_operator;
GRANT EXECUTE ON FUNCTION headwater.append_once TO headwater_app;
RESET ROLE;
