-- name: prepare
CREATE TABLE public.effects (n bigserial, kind text NOT NULL, mark text NOT NULL, tenant text NOT NULL);
GRANT ALL ON public.effects TO PUBLIC;
GRANT ALL ON SEQUENCE public.effects_n_seq TO PUBLIC;

-- name: effect
INSERT INTO public.effects (kind, mark, tenant) VALUES (%(kind)s, %(mark)s, %(tenant)s)

-- name: effects
SELECT kind, mark, tenant FROM public.effects

-- name: committed
SELECT position, tenant, stream, version, data->>'mark', (data->>'amount')::int, coalesce((data->>'beside')::boolean, false),
       coalesce((data->>'claim')::boolean, false)
FROM headwater.events ORDER BY position

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
SELECT position, tenant, stream, version, data->>'mark' FROM headwater.events WHERE position > %(after)s ORDER BY position LIMIT 1000

-- name: count_events
SELECT count(*)::int FROM headwater.events
