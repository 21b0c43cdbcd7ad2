-- The rows of a candidate's slices (VIEW~next~0, VIEW~next~1, ...) beside its own (VIEW~next), while several
-- processes build it.

-- name: create
INSERT INTO headwater.views (view, kind, definition, fingerprint, generation)
SELECT s.row, v.kind, v.definition, v.fingerprint, v.generation
FROM headwater.views AS v CROSS JOIN unnest(%(rows)s::text[]) AS s(row) WHERE v.view = %(view)s

-- name: create_checkpoints
INSERT INTO headwater.checkpoints (view, position, epoch)
SELECT s.row, 0, l.epoch FROM headwater.log AS l CROSS JOIN unnest(%(rows)s::text[]) AS s(row)

-- name: positions
SELECT position FROM headwater.checkpoints WHERE starts_with(view, %(view)s || '~')

-- name: held_positions
-- From here on no slice goes on: a batch moves its checkpoint first.
SELECT position FROM headwater.checkpoints WHERE starts_with(view, %(view)s || '~') FOR UPDATE

-- name: join
UPDATE headwater.checkpoints AS c SET position = %(upto)s, epoch = l.epoch, updated_at = clock_timestamp()
FROM headwater.log AS l WHERE c.view = %(view)s

-- name: join_parked
UPDATE headwater.parked SET view = %(view)s WHERE starts_with(view, %(view)s || '~')

-- name: forget
DELETE FROM headwater.views WHERE starts_with(view, %(view)s || '~')
