-- name: prepare
CREATE TABLE public.effects (n bigserial, kind text NOT NULL, mark text NOT NULL, tenant text NOT NULL);
GRANT ALL ON public.effects TO PUBLIC;
GRANT ALL ON SEQUENCE public.effects_n_seq TO PUBLIC;
CREATE TABLE public.accounts (key text PRIMARY KEY, "order" text NOT NULL, amount int NOT NULL, tenant text NOT NULL);
GRANT ALL ON public.accounts TO PUBLIC;
CREATE TABLE public.goods (id int PRIMARY KEY, tenant text NOT NULL, price numeric NOT NULL, note text);
ALTER TABLE public.goods OWNER TO headwater_app;
INSERT INTO public.goods SELECT n, (ARRAY['north', 'south', 'east'])[1 + n % 3], n, 'before' FROM generate_series(1, 400) AS n;

-- name: effect
INSERT INTO public.effects (kind, mark, tenant) VALUES (%(kind)s, %(mark)s, %(tenant)s)

-- name: effects
SELECT kind, mark, tenant FROM public.effects

-- name: committed
SELECT position, tenant, stream, version, CASE WHEN type LIKE 'shop.%%' THEN coalesce(data->>'mark', id::text) ELSE id::text END,
       type, data
FROM headwater.events ORDER BY position

-- name: not_dense
SELECT tenant, stream, count(*), max(version) FROM headwater.events GROUP BY 1, 2 HAVING count(*) <> max(version)

-- name: changes
SELECT tenant, stream, version, substring(type from '[^.]+$'), data, metadata
FROM headwater.events WHERE type LIKE 'goods.%%' ORDER BY position

-- name: goods
SELECT tenant, 'goods/' || id, price::text, note FROM public.goods

-- name: account
INSERT INTO public.accounts (key, "order", amount, tenant) VALUES (%(key)s, %(order)s, %(amount)s, %(tenant)s) ON CONFLICT DO NOTHING

-- name: accounts
SELECT tenant, "order", count(*)::int, sum(amount)::int FROM public.accounts GROUP BY 1, 2

-- name: sagas
SELECT tenant, id, state FROM headwater.sagas

-- name: saga
SELECT s.state, s.detail, s.job, s.fence, s.woken, s.due_at, s.timer_at, s.changed_at, headwater.is_unfinished(s.job),
       (SELECT string_agg(e.type || ' ' || to_char(e.recorded_at, 'MI:SS.MS'), ', ' ORDER BY e.version) FROM headwater.events AS e
        WHERE e.tenant = s.tenant AND e.stream = 'saga/' || s.saga || '/' || s.id),
       (SELECT string_agg(concat_ws(' ', j.id, j.run_at::text, j.arguments::text), ', ' ORDER BY j.id) FROM headwater.jobs AS j WHERE j.arguments->>'instance' = s.id),
       (SELECT string_agg(t::text, ', ' ORDER BY t.seq) FROM headwater.job_steps AS t JOIN headwater.jobs AS j ON j.id = ANY (t.taken) OR j.id = ANY (t.settled)
        WHERE j.arguments->>'instance' = s.id),
       (SELECT string_agg(f::text, ', ') FROM headwater.job_failures AS f JOIN headwater.jobs AS j ON j.id = f.id WHERE j.arguments->>'instance' = s.id)
FROM headwater.sagas AS s WHERE s.tenant = %(tenant)s AND s.id = %(id)s

-- name: forgotten
SELECT tenant, data->>'subject' FROM headwater.events WHERE type = 'subject.forgotten'

-- name: change_price
UPDATE public.goods SET price = price + 1 WHERE id BETWEEN %(id)s AND %(id)s + %(more)s

-- name: change_note
UPDATE public.goods SET note = note || 'x' WHERE id = %(id)s

-- name: change_tenant
UPDATE public.goods SET tenant = %(tenant)s WHERE id = %(id)s

-- name: change_key
UPDATE public.goods SET id = %(id)s + 1000 WHERE id = %(id)s AND NOT EXISTS (SELECT FROM public.goods WHERE id = %(id)s + 1000)

-- name: add_goods
INSERT INTO public.goods (id, tenant, price) VALUES (%(id)s, %(tenant)s, 0) ON CONFLICT DO NOTHING

-- name: remove_goods
DELETE FROM public.goods WHERE id = %(id)s

-- name: add_column
ALTER TABLE public.goods ADD COLUMN IF NOT EXISTS more text;

-- name: append
SELECT a.position, a.version, a.token FROM headwater.append(
  'line/' || %(line)s::text, 'shop.noted',
  jsonb_build_object('line', %(line)s::text, 'mark', %(mark)s::text, 'amount', %(amount)s::int, 'beside', false),
  expected_version => %(expect)s::int, idempotency_key => %(key)s::text) AS a

-- name: set_tenant
SELECT set_config('headwater.tenant', %(tenant)s, true)

-- name: sleep
SELECT pg_sleep(%(seconds)s)

-- name: newest
SELECT coalesce(max(position), 0) FROM headwater.events

-- name: checkpoints
SELECT view, position FROM headwater.checkpoints

-- name: holder
SELECT split_part(holder, '/', 2)::int FROM headwater.leases AS l WHERE name = %(name)s AND headwater.is_held(l)

-- name: parked
SELECT view, position, reason FROM headwater.parked ORDER BY view, position

-- name: terminate
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY md5(pid::text || %(salt)s) LIMIT %(count)s

-- name: unwatched
SELECT position, tenant, stream, version, coalesce(data->>'mark', id::text) FROM headwater.events
WHERE position > %(after)s AND type LIKE 'shop.%%' ORDER BY position LIMIT 1000

-- name: counts
SELECT count(*)::int, (SELECT count(*)::int FROM public.effects), (SELECT count(*)::int FROM headwater.sagas),
       count(*) FILTER (WHERE type LIKE 'goods.%%')::int, count(*) FILTER (WHERE type = 'subject.forgotten')::int
FROM headwater.events

-- name: backends
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY md5(pid::text || %(salt)s) LIMIT %(count)s
