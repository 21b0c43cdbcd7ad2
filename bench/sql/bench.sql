-- name: bare
CREATE TABLE bench.bare (
  position bigint PRIMARY KEY DEFAULT nextval('bench.positions'),
  tenant text NOT NULL, stream text NOT NULL, type text NOT NULL, recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  data jsonb NOT NULL)

-- name: insert_bare
INSERT INTO bench.bare (tenant, stream, type, data) VALUES ('main', %(stream)s, 'order.placed', %(data)s::jsonb)

-- name: twin
CREATE TABLE bench.twin (LIKE headwater.events INCLUDING ALL)

-- name: newest
SELECT * FROM headwater.events ORDER BY position DESC LIMIT 100000

-- name: by_hand_table
CREATE TABLE bench.by_hand (
  tenant text NOT NULL, customer text, orders bigint NOT NULL, total numeric, largest numeric,
  UNIQUE NULLS NOT DISTINCT (tenant, customer)) WITH (fillfactor = 70)

-- name: by_hand
INSERT INTO bench.by_hand AS b (tenant, customer, orders, total, largest)
SELECT e.tenant, e.data ->> 'customer', count(*), sum((e.data ->> 'total')::numeric), max((e.data ->> 'total')::numeric)
FROM headwater.events AS e
WHERE e.type = 'order.placed' AND e.position > %(after)s AND e.position <= %(upto)s
GROUP BY 1, 2
ON CONFLICT (tenant, customer) DO UPDATE SET
  orders = b.orders + excluded.orders, total = coalesce(b.total + excluded.total, b.total, excluded.total),
  largest = greatest(b.largest, excluded.largest)

-- name: rebuilt
CREATE TABLE bench.rebuilt AS
SELECT e.tenant, e.data ->> 'customer' AS customer, count(*) AS orders, sum((e.data ->> 'total')::numeric) AS total,
       max((e.data ->> 'total')::numeric) AS largest
FROM headwater.events AS e WHERE e.type = 'order.placed' GROUP BY 1, 2;
CREATE UNIQUE INDEX ON bench.rebuilt (tenant, customer) NULLS NOT DISTINCT;

-- name: recomputed
-- A row counts whole, so that no column is left out.
SELECT count(q) FROM (
  SELECT e.tenant, e.data ->> 'customer' AS customer, count(*) AS orders, sum((e.data ->> 'total')::numeric) AS total,
         max((e.data ->> 'total')::numeric) AS largest
  FROM headwater.events AS e WHERE e.type = 'order.placed' GROUP BY 1, 2) AS q

-- name: pgbench_append
\set n random(1, 100000)
SELECT headwater.append('order/o' || :n::text, 'order.placed', jsonb_build_object('order', 'o' || :n::text, 'customer', 'c' || :n::text, 'total', :n::int, 'lines', 1));

-- name: pgbench_bare
\set n random(1, 100000)
INSERT INTO bench.bare (tenant, stream, type, data) VALUES ('main', 'order/o' || :n::text, 'order.placed', jsonb_build_object('order', 'o' || :n::text, 'customer', 'c' || :n::text, 'total', :n::int, 'lines', 1));

-- name: captured_tables
CREATE SCHEMA captured;
CREATE TABLE captured.plain (id int PRIMARY KEY, customer text NOT NULL, total numeric(10,2) NOT NULL, status text NOT NULL, changed_at timestamptz NOT NULL) WITH (fillfactor = 50);
CREATE TABLE captured.orders (LIKE captured.plain INCLUDING ALL) WITH (fillfactor = 50);
INSERT INTO captured.plain SELECT n, 'c' || n, n, 'open', now() FROM generate_series(1, 100000) AS n;
INSERT INTO captured.orders SELECT * FROM captured.plain;

-- name: pgbench_update_captured
\set n random(1, 100000)
UPDATE captured.orders SET total = total + 1, changed_at = clock_timestamp() WHERE id = :n;

-- name: pgbench_update_plain
\set n random(1, 100000)
UPDATE captured.plain SET total = total + 1, changed_at = clock_timestamp() WHERE id = :n;

-- name: bulk_update_captured
UPDATE captured.orders SET total = total + 1, changed_at = clock_timestamp()

-- name: bulk_update_plain
UPDATE captured.plain SET total = total + 1, changed_at = clock_timestamp()

-- name: captured_events
SELECT count(*) FROM headwater.events WHERE type = 'captured.orders.updated'

-- name: rollup_table
CREATE TABLE bench.rollup (
  tenant text NOT NULL, minute timestamptz, sensor text, readings bigint NOT NULL, total bigint, least bigint, most bigint,
  counted bigint NOT NULL, UNIQUE NULLS NOT DISTINCT (tenant, minute, sensor)) WITH (fillfactor = 70)

-- name: rollup
INSERT INTO bench.rollup AS b (tenant, minute, sensor, readings, total, least, most, counted)
SELECT e.tenant, date_trunc('minute', e.occurred_at), e.data ->> 'sensor', count(*), sum((e.data ->> 'value')::bigint),
       min((e.data ->> 'value')::bigint), max((e.data ->> 'value')::bigint), count((e.data ->> 'value')::bigint)
FROM headwater.events AS e
WHERE e.type = 'sensor.read' AND e.position > %(after)s AND e.position <= %(upto)s
GROUP BY 1, 2, 3
ON CONFLICT (tenant, minute, sensor) DO UPDATE SET
  readings = b.readings + excluded.readings, total = coalesce(b.total + excluded.total, b.total, excluded.total),
  least = least(b.least, excluded.least), most = greatest(b.most, excluded.most), counted = b.counted + excluded.counted

-- name: jobs_left
SELECT bool_or(headwater.lane_waits(l.lane_id) OR headwater.queue_waits(l.queue_id)) OR EXISTS (
  SELECT FROM headwater.job_workers AS w CROSS JOIN headwater.job_queues AS q CROSS JOIN LATERAL headwater.open_jobs(w.worker, q.queue_id) AS o)
FROM headwater.job_lanes AS l

-- name: sagas_ended
SELECT count(*)::int FROM headwater.sagas AS s WHERE s.ended_at IS NOT NULL

-- name: saga_waits
SELECT (extract(epoch FROM f.recorded_at - e.recorded_at) * 1000)::float8
FROM headwater.events AS e JOIN headwater.events AS f ON f.stream = 'saga/visit/' || (e.data->>'visit') AND f.tenant = e.tenant AND f.type = 'saga.finished'
WHERE e.type = 'visit.began' AND e.data->>'visit' LIKE 'steady%'

-- name: log_bytes
SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c
WHERE c.relnamespace = 'headwater'::regnamespace AND c.relkind IN ('r', 'm') AND (c.relname LIKE 'events%' OR c.relname IN ('streams', 'event_ids'))

-- name: end_sessions
SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity AS a WHERE a.datname = %(database)s

-- name: drop_slots
SELECT pg_drop_replication_slot(s.slot_name) FROM pg_replication_slots AS s WHERE s.database = %(database)s
