-- name: take
SELECT t.key, t.granted, t.due_seconds
FROM headwater.take_rates(%(keys)s::text[], %(every)s::float8[], %(bursts)s::int[], %(wanted)s::int[]) AS t
