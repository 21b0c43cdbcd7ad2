-- name: register
SELECT headwater.register_saga(%(saga)s, %(queue)s, %(types)s::text[], %(field)s, %(version)s)

-- name: retire
SELECT headwater.retire_saga(%(saga)s)

-- name: start
SELECT s.position, s.token FROM headwater.start_saga(%(saga)s, %(instance)s, %(command)s::jsonb, %(metadata)s::jsonb) AS s

-- name: begin
SELECT b.standing, b.moment, b.version, b.type, b.data, b.metadata, b.recorded_at, b.position, b.other_type, b.other_version, b.other_data
FROM headwater.begin_saga(%(tenant)s, %(saga)s, %(instance)s, %(job)s, %(fence)s, %(timer)s, %(after)s) AS b

-- name: record
SELECT headwater.record_saga(%(tenant)s, %(saga)s, %(instance)s, %(job)s, %(fence)s, %(expected)s, %(events)s::jsonb,
                             %(state)s, %(detail)s, %(todo)s, %(due)s, %(release)s)

-- name: answers
SELECT a.step, a.late, a.position, a.type, a.schema_version, a.data
FROM headwater.answers_to_saga(%(tenant)s, %(saga)s, %(instance)s, %(steps)s::int[], %(overdue)s::int[]) AS a

-- name: list
SELECT s.tenant, s.saga, s.id, s.version, s.state, s.detail, s.todo, s.due_at, s.started_at, s.changed_at, s.ended_at
FROM headwater.sagas AS s
WHERE (%(tenant)s::text IS NULL OR s.tenant = %(tenant)s) AND (%(saga)s::text IS NULL OR s.saga = %(saga)s)
  AND (%(instance)s::text IS NULL OR s.id = %(instance)s)
  AND CASE WHEN %(states)s::text[] IS NULL THEN %(ended)s OR s.ended_at IS NULL ELSE s.state = ANY (%(states)s::text[]) END
ORDER BY s.start_position DESC LIMIT %(limit)s

-- name: history
SELECT e.version, e.recorded_at, e.type, e.data::text FROM headwater.sagas AS s
JOIN headwater.events AS e ON e.tenant = s.tenant AND e.stream = 'saga/' || s.saga || '/' || s.id AND e.position >= s.start_position
WHERE (s.tenant, s.saga, s.id) = (%(tenant)s, %(saga)s, %(instance)s) ORDER BY e.version

-- name: steer
SELECT headwater.steer_saga(%(tenant)s, %(saga)s, %(instance)s, %(verb)s, %(note)s, %(undo)s)

-- name: apply
SELECT headwater.apply_sagas(%(after)s, %(upto)s, (SELECT c.derived_upto FROM headwater.checkpoints AS c WHERE c.view = %(view)s), %(aside)s::bigint[])

-- name: clear
SELECT headwater.clear_sagas()

-- name: from_now
UPDATE headwater.checkpoints AS c SET position = (SELECT s.last_value - (NOT s.is_called)::int FROM headwater.safe AS s) WHERE c.view = %(view)s

-- name: waits
SELECT count(*)::int FROM headwater.saga_waits

-- name: differing
SELECT d.tenant, d.instance, d.step, d.expected, d.stored FROM headwater.differing_waits(%(upto)s) AS d ORDER BY 1, 2, 3

-- name: apply_one
SELECT headwater.apply_sagas(%(position)s - 1, %(position)s, %(position)s - 1, '{}')

-- name: started
SELECT e.position FROM headwater.streams AS s JOIN headwater.events AS e
  ON e.tenant = s.tenant AND e.stream = s.stream AND e.version = 1 AND e.position >= s.first_position
WHERE s.tenant = %(tenant)s AND s.stream = %(stream)s
