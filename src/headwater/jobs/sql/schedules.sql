-- name: register
INSERT INTO headwater.job_schedules AS s (schedule, definition, tenant, planned_at, due_at)
VALUES (%(schedule)s, %(definition)s::jsonb, %(tenant)s, %(planned)s, %(due)s)
ON CONFLICT (schedule) DO UPDATE SET definition = excluded.definition, tenant = excluded.tenant,
  planned_at = CASE WHEN s.definition = excluded.definition THEN s.planned_at ELSE excluded.planned_at END,
  due_at = CASE WHEN s.definition = excluded.definition THEN s.due_at ELSE excluded.due_at END

-- name: due
SELECT FROM headwater.job_schedules AS s WHERE s.schedule = %(schedule)s AND s.due_at <= %(now)s AND NOT s.paused
  AND (s.active_id IS NULL OR NOT headwater.is_unfinished(s.active_id))

-- name: lock
SELECT s.planned_at, s.tenant, s.active_id, s.active_planned,
       (SELECT o.outcome FROM headwater.job_outcomes AS o WHERE o.id = s.active_id LIMIT 1),
       (SELECT d.reason FROM headwater.job_dead AS d WHERE d.id = s.active_id)
FROM headwater.job_schedules AS s WHERE s.schedule = %(schedule)s AND s.due_at <= %(now)s AND NOT s.paused
  AND (s.active_id IS NULL OR NOT headwater.is_unfinished(s.active_id))
FOR UPDATE OF s SKIP LOCKED

-- name: set_tenant
SELECT set_config('headwater.tenant', %(tenant)s, true)

-- name: planned
UPDATE headwater.job_schedules AS s SET planned_at = %(planned)s, due_at = %(due)s, active_id = %(active)s, active_planned = %(active_planned)s
WHERE s.schedule = %(schedule)s

-- name: ended
UPDATE headwater.job_schedules AS s SET active_id = NULL, active_planned = NULL, last_planned = %(planned)s, last_outcome = %(outcome)s
WHERE s.schedule = %(schedule)s AND s.active_id = %(job)s

-- name: list
SELECT s.schedule, s.definition->>'when', s.definition->>'zone', s.definition->>'job', s.planned_at, s.paused, s.active_id, s.last_planned, s.last_outcome
FROM headwater.job_schedules AS s ORDER BY s.schedule

-- name: pause
UPDATE headwater.job_schedules AS s SET paused = %(pause)s WHERE s.schedule = %(schedule)s
