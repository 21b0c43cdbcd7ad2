-- A view's rows, and those of the candidate beside it (VIEW~next) and of the generation kept (VIEW~last).

-- name: generations
SELECT generation FROM headwater.views WHERE view = %(view)s OR starts_with(view, %(view)s || '~')

-- name: next_generation
UPDATE headwater.views SET newest = greatest(newest, generation) + 1 WHERE view = %(view)s RETURNING newest

-- name: rows
SELECT view, kind, fingerprint, generation, definition->>'store' FROM headwater.views WHERE view = %(view)s

-- name: create
INSERT INTO headwater.views (view, kind, definition, fingerprint, generation)
VALUES (%(view)s, %(kind)s, %(definition)s::jsonb, %(fingerprint)s, %(generation)s)

-- name: clear_parked
-- Also those of slices.
DELETE FROM headwater.parked WHERE view = %(view)s OR starts_with(view, %(view)s || '~')

-- name: forget
DELETE FROM headwater.views WHERE view = %(view)s

-- name: hold
SELECT position FROM headwater.checkpoints WHERE view = %(view)s FOR UPDATE

-- name: keep_view
INSERT INTO headwater.views (view, kind, definition, fingerprint, generation, deployed_at)
SELECT %(to)s, kind, definition, fingerprint, generation, deployed_at FROM headwater.views WHERE view = %(from)s

-- name: keep_checkpoint
INSERT INTO headwater.checkpoints (view, position, epoch, revision)
SELECT %(to)s, position, epoch, revision FROM headwater.checkpoints WHERE view = %(from)s

-- name: move_parked
UPDATE headwater.parked SET view = %(to)s WHERE view = %(from)s

-- name: take_view
UPDATE headwater.views AS v
SET kind = n.kind, definition = n.definition, fingerprint = n.fingerprint, generation = n.generation, deployed_at = clock_timestamp()
FROM headwater.views AS n WHERE v.view = %(to)s AND n.view = %(from)s

-- name: take_checkpoint
UPDATE headwater.checkpoints AS c
SET position = n.position, epoch = n.epoch, revision = greatest(c.revision, n.revision) + 1, updated_at = clock_timestamp(),
    derived_upto = greatest(c.derived_upto, c.position)
FROM headwater.checkpoints AS n WHERE c.view = %(to)s AND n.view = %(from)s

-- name: level_fences
-- A store compares fences by generation: whoever drives one next must not come with a lower one.
INSERT INTO headwater.leases AS l (name, holder, fence, expires_at, state)
SELECT n.name, 'rebuild', f.fence, '-infinity', 'released'
FROM unnest(ARRAY[%(view)s, %(view)s || '~next']) AS n(name),
     (SELECT coalesce(max(fence), 0) AS fence FROM headwater.leases WHERE name IN (%(view)s, %(view)s || '~next')) AS f
ON CONFLICT (name) DO UPDATE SET fence = greatest(l.fence, excluded.fence)

-- name: short_waits
SET LOCAL lock_timeout = '250ms'

-- name: move_plan
UPDATE headwater.planned SET view = %(to)s WHERE view = %(from)s

-- name: read_now
-- The generation that is read, which a swap cannot exchange until this transaction ends.
SELECT generation FROM headwater.views WHERE view = %(view)s FOR SHARE

-- name: tables
SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'headwater_views' AND c.relkind = 'r'
  AND (c.relname = %(table)s OR starts_with(c.relname, %(table)s || '__'))
