-- name: fingerprint
SELECT fingerprint, generation FROM headwater.views WHERE view = %(view)s

-- name: create
INSERT INTO headwater.views (view, kind, definition, fingerprint) VALUES (%(view)s, %(kind)s, %(definition)s::jsonb, %(fingerprint)s)

-- name: create_checkpoint
INSERT INTO headwater.checkpoints (view, position, epoch) SELECT %(view)s, 0, l.epoch FROM headwater.log AS l

-- name: lock_deployment
SELECT pg_advisory_xact_lock(hashtextextended('headwater.deploy', 0))

-- name: redefine
UPDATE headwater.views
SET kind = %(kind)s, definition = %(definition)s::jsonb, fingerprint = %(fingerprint)s,
    generation = greatest(newest, generation) + 1, newest = greatest(newest, generation) + 1, deployed_at = clock_timestamp()
WHERE view = %(view)s
RETURNING generation

-- name: restart
-- Whoever drives it opens it anew, and so learns of it though nothing is appended.
WITH given_back AS (
  UPDATE headwater.leases SET expires_at = '-infinity' WHERE name = %(view)s
) UPDATE headwater.checkpoints AS c
SET position = 0, revision = c.revision + 1, epoch = l.epoch, updated_at = clock_timestamp(),
    derived_upto = greatest(c.derived_upto, c.position)
FROM headwater.log AS l WHERE c.view = %(view)s

-- name: disturb
UPDATE headwater.checkpoints SET revision = revision + 1 WHERE view = %(view)s RETURNING position

-- name: take_over
UPDATE headwater.checkpoints SET fence = %(fence)s WHERE view = %(view)s AND fence <= %(fence)s AND headwater.goes_on()
RETURNING position, revision

-- name: advance
UPDATE headwater.checkpoints AS c
SET position = headwater.moved(c, %(after)s, %(upto)s, %(fence)s, %(revision)s), updated_at = clock_timestamp()
WHERE c.view = %(view)s
RETURNING position

-- name: reset
UPDATE headwater.checkpoints AS c SET position = %(position)s, epoch = l.epoch, updated_at = clock_timestamp()
FROM headwater.log AS l WHERE c.view = %(view)s AND c.fence = %(fence)s AND c.revision = %(revision)s

-- name: checkpoint
SELECT position FROM headwater.checkpoints WHERE view = %(view)s

-- name: changes_from
SELECT changes_from FROM headwater.checkpoints WHERE view = %(view)s

-- name: derived_upto
SELECT derived_upto FROM headwater.checkpoints WHERE view = %(view)s

-- name: first_after
SELECT e.position FROM headwater.events AS e WHERE e.position > %(after)s AND e.position <= %(upto)s ORDER BY e.position LIMIT 1

-- name: not_applied
SELECT position, tenant, keys, status FROM headwater.parked WHERE view = %(view)s ORDER BY position

-- name: parked_here
SELECT position, tenant, keys FROM headwater.parked
WHERE view = %(view)s AND status = 'parked' AND (%(positions)s::bigint[] IS NULL OR position = ANY (%(positions)s))
ORDER BY position

-- name: set_aside
INSERT INTO headwater.parked (view, position, tenant, keys, reason, culprit, status)
SELECT %(view)s, e.position, e.tenant, %(keys)s::text[], %(reason)s, %(culprit)s, %(status)s
FROM headwater.events AS e WHERE e.position = %(position)s
ON CONFLICT (view, position) DO UPDATE SET reason = excluded.reason

-- name: follow
INSERT INTO headwater.parked (view, position, tenant, keys, reason, culprit)
SELECT %(view)s, f.position, f.tenant, ARRAY[f.key], 'an earlier event of this key is parked', false
FROM unnest(%(positions)s, %(tenants)s, %(keys)s) AS f(position, tenant, key)
ON CONFLICT (view, position) DO NOTHING

-- name: clear_parked
DELETE FROM headwater.parked WHERE view = %(view)s

-- name: unpark
DELETE FROM headwater.parked WHERE view = %(view)s AND position = ANY (%(positions)s::bigint[])

-- name: discard
UPDATE headwater.parked SET status = 'discarded' WHERE view = %(view)s AND position = ANY (%(positions)s::bigint[]) AND status = 'parked'

-- name: plan
-- Only by who holds the lease, and on disk before it returns: the store's data may rest on it.
INSERT INTO headwater.planned (view, generation, after_position, upto)
SELECT c.view, %(generation)s, %(after)s, %(upto)s
FROM set_config('synchronous_commit', 'on', true),
     (SELECT c.view FROM headwater.checkpoints AS c
      WHERE c.view = %(view)s AND c.fence = %(fence)s AND c.revision = %(revision)s FOR UPDATE) AS c
ON CONFLICT (view) DO UPDATE SET generation = excluded.generation, after_position = excluded.after_position, upto = excluded.upto

-- name: planned
SELECT upto FROM headwater.planned WHERE view = %(view)s AND generation = %(generation)s AND after_position = %(after)s

-- name: channel
SELECT definition ->> 'channel' FROM headwater.views WHERE view = %(view)s
