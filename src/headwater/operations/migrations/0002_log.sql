-- The log: events, streams, positions, and who reads what of them.
SET ROLE headwater_owner;

CREATE TABLE headwater.log (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  log_id text NOT NULL CHECK (log_id ~ '^[0-9a-f]{8}$'),
  epoch int NOT NULL DEFAULT 1,
  system_identifier bigint NOT NULL,
  timeline int NOT NULL,
  idempotency_seconds int NOT NULL DEFAULT 86400 CHECK (idempotency_seconds > 0),
  idle_append_seconds int NOT NULL DEFAULT 30 CHECK (idle_append_seconds > 0),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO headwater.log (log_id, system_identifier, timeline)
SELECT left(replace(gen_random_uuid()::text, '-', ''), 8), s.system_identifier, c.timeline_id
FROM pg_control_system() AS s, pg_control_checkpoint() AS c;

-- CACHE 1, no identity, no OWNED BY: the order protocol rests on the lock that nextval takes.
CREATE SEQUENCE headwater.position_seq AS bigint MINVALUE 0 START 0 CACHE 1;
-- The published watermark: every position at or below it is decided and durable.
CREATE SEQUENCE headwater.safe AS bigint MINVALUE -1 START -1 CACHE 1;

CREATE TABLE headwater.events (
  position bigint NOT NULL,
  tenant text NOT NULL,
  stream text NOT NULL,
  version int NOT NULL,
  type text NOT NULL,
  schema_version int NOT NULL,
  id uuid NOT NULL,
  recorded_at timestamptz NOT NULL,
  occurred_at timestamptz,
  data jsonb NOT NULL,
  metadata jsonb NOT NULL,
  keys text[],
  PRIMARY KEY (position)
) PARTITION BY RANGE (position);
CREATE INDEX events_stream ON headwater.events (tenant, stream, version);

CREATE TABLE headwater.streams (
  tenant text NOT NULL,
  stream text NOT NULL,
  version int NOT NULL,
  first_position bigint NOT NULL,
  PRIMARY KEY (tenant, stream)
) WITH (fillfactor = 80);

CREATE TABLE headwater.idempotency (
  tenant text NOT NULL,
  key text NOT NULL,
  request_hash bytea NOT NULL,
  positions bigint[],
  versions int[],
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key)
) WITH (fillfactor = 80);
CREATE INDEX idempotency_expiry ON headwater.idempotency (expires_at);

-- Month k since January 2020 owns the positions [k * 2^40, (k + 1) * 2^40).
CREATE FUNCTION headwater.block_of(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (extract(year FROM moment AT TIME ZONE 'UTC')::bigint - 2020) * 12
       + extract(month FROM moment AT TIME ZONE 'UTC')::bigint - 1
$$;

CREATE FUNCTION headwater.block_start(block bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT block * 1099511627776 $$;

-- Creates the partitions of the blocks from `first` on. Each is built beside the parent and then
-- attached: its CHECK spares the scan, and ATTACH blocks neither appends nor reads.
CREATE FUNCTION headwater.create_blocks(first bigint, count int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  block bigint;
  partition text;
  created int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.blocks', 0));
  FOR block IN SELECT generate_series(first, first + count - 1) LOOP
    partition := 'events_' || lpad(block::text, 4, '0');
    CONTINUE WHEN to_regclass('headwater.' || partition) IS NOT NULL;
    EXECUTE format('CREATE TABLE headwater.%I (LIKE headwater.events INCLUDING ALL,
                    CONSTRAINT %I CHECK (position >= %s AND position < %s))',
                   partition, partition || '_block',
                   headwater.block_start(block), headwater.block_start(block + 1));
    EXECUTE format('ALTER TABLE headwater.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', partition);
    EXECUTE format('CREATE POLICY owner_all ON headwater.%I TO headwater_owner USING (true) WITH CHECK (true)', partition);
    EXECUTE format('ALTER TABLE headwater.events ATTACH PARTITION headwater.%I FOR VALUES FROM (%s) TO (%s)',
                   partition, headwater.block_start(block), headwater.block_start(block + 1));
    EXECUTE format('ALTER TABLE headwater.%I DROP CONSTRAINT %I', partition, partition || '_block');
    created := created + 1;
  END LOOP;
  RETURN created;
END
$$;

-- Moves the sequence to the block of `moment` if it is not there yet. The partition must exist, so
-- that an append never lands nowhere. setval only ever raises the sequence, under one lock. A block's
-- first position counts as drawn and is never used.
CREATE FUNCTION headwater.enter_block(moment timestamptz DEFAULT clock_timestamp()) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  block bigint := headwater.block_of(moment);
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('headwater.blocks', 0));
  IF to_regclass('headwater.events_' || lpad(block::text, 4, '0')) IS NULL THEN
    RETURN false;
  END IF;
  PERFORM setval('headwater.position_seq', headwater.block_start(block), true)
    FROM headwater.position_seq WHERE last_value < headwater.block_start(block);
  RETURN FOUND;
END
$$;

-- Keeps blocks attached well ahead; the relay calls it every hour and operators may.
CREATE FUNCTION headwater.maintain_blocks() RETURNS int
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT headwater.create_blocks(headwater.block_of(clock_timestamp()), 4)
$$;

SELECT headwater.create_blocks(headwater.block_of(clock_timestamp()), 4);
SELECT headwater.enter_block();
SELECT setval('headwater.safe', last_value) FROM headwater.position_seq;

ALTER TABLE headwater.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.events TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.events FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_reads ON headwater.events FOR SELECT TO headwater_relay USING (true);
CREATE POLICY operator_reads ON headwater.events FOR SELECT TO headwater_operator USING (true);

ALTER TABLE headwater.streams ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.streams TO headwater_owner USING (true) WITH CHECK (true);
CREATE POLICY tenant_reads ON headwater.streams FOR SELECT TO headwater_app
  USING (tenant = (SELECT current_setting('headwater.tenant', true)));
CREATE POLICY relay_reads ON headwater.streams FOR SELECT TO headwater_relay USING (true);
CREATE POLICY operator_reads ON headwater.streams FOR SELECT TO headwater_operator USING (true);

ALTER TABLE headwater.idempotency ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner_all ON headwater.idempotency TO headwater_owner USING (true) WITH CHECK (true);

GRANT SELECT ON headwater.log, headwater.events, headwater.streams, headwater.position_seq, headwater.safe
  TO headwater_app, headwater_relay, headwater_operator;
REVOKE EXECUTE ON FUNCTION headwater.create_blocks, headwater.enter_block, headwater.maintain_blocks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION headwater.enter_block, headwater.maintain_blocks
  TO headwater_relay, headwater_operator;
RESET ROLE;
