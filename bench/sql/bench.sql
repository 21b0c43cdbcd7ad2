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

-- name: pgbench_append
\set n random(1, 100000)
SELECT headwater.append('order/o' || :n::text, 'order.placed', jsonb_build_object('order', 'o' || :n::text, 'customer', 'c' || :n::text, 'total', :n::int, 'lines', 1));

-- name: pgbench_bare
\set n random(1, 100000)
INSERT INTO bench.bare (tenant, stream, type, data) VALUES ('main', 'order/o' || :n::text, 'order.placed', jsonb_build_object('order', 'o' || :n::text, 'customer', 'c' || :n::text, 'total', :n::int, 'lines', 1));
