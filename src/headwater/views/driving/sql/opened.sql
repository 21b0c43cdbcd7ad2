-- name: register
SELECT headwater.register_opened(%(view)s, %(generation)s, %(key_ids)s, %(tenants)s, %(keys)s)

-- name: durably
SELECT set_config('synchronous_commit', 'on', true)

-- name: registered
SELECT o.key FROM headwater.opened AS o
WHERE o.key_id = %(key_id)s AND o.view = %(view)s AND o.generation = %(generation)s ORDER BY o.key LIMIT %(limit)s

-- name: unregister
DELETE FROM headwater.opened AS o
WHERE o.key_id = %(key_id)s AND o.view = %(view)s AND o.generation = %(generation)s
  AND (%(keys)s::text[] IS NULL OR o.key = ANY (%(keys)s))

-- name: left
SELECT o.view, count(*)::int FROM headwater.opened AS o WHERE o.key_id = %(key_id)s GROUP BY o.view

-- name: generation
-- A generation beside the one that is read, where it holds something of a person.
SELECT FROM headwater.views AS v JOIN headwater.opened AS o ON o.view = %(view)s AND o.generation = v.generation
WHERE v.view = %(row)s AND o.key_id = %(key_id)s LIMIT 1

-- name: generations
SELECT max(greatest(v.newest, v.generation)), array_agg(v.generation) FROM headwater.views AS v
WHERE v.view = %(view)s OR starts_with(v.view, %(view)s || '~')

-- name: sweep
-- What generations held that are gone.
DELETE FROM headwater.opened AS o WHERE o.view = %(view)s AND o.generation <> ALL (%(kept)s::int[])

-- name: of_keys
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND e.type = ANY (%(types)s) AND e.position <= %(upto)s
  AND EXISTS (SELECT FROM unnest(%(fields)s::text[]) AS f(name) WHERE e.data ->> f.name = ANY (%(keys)s::text[]))
ORDER BY e.position

-- name: wait_for_readers
SET lock_timeout = '10s'

-- name: give_back
-- Whoever drives it learns of it when it renews, and writes nothing from the next fence on.
UPDATE headwater.leases SET expires_at = '-infinity' WHERE name = %(view)s

-- name: types
SELECT e.position, e.type FROM headwater.events AS e WHERE e.position = ANY (%(positions)s)
