-- name: checkpoints
SELECT view, position FROM headwater.checkpoints WHERE view = ANY (%(views)s)

-- name: guard
SELECT l.epoch, (
  SELECT min(p.position) FROM headwater.parked AS p
  WHERE p.view = ANY (%(views)s) AND p.tenant = %(tenant)s AND p.status = 'parked'
    AND (%(key)s::text IS NULL OR p.keys IS NULL OR %(key)s = ANY (p.keys)))
FROM headwater.log AS l

-- name: guard_outside
SELECT l.epoch, (
  SELECT min(p.position) FROM headwater.parked AS p
  WHERE p.view = %(view)s AND p.tenant = %(tenant)s AND p.status = 'parked'
    AND (%(key)s::text IS NULL OR p.keys IS NULL OR %(key)s = ANY (p.keys))),
  l.log_id, (SELECT v.generation FROM headwater.views AS v WHERE v.view = %(view)s)
FROM headwater.log AS l

-- name: begin
SELECT set_config('headwater.tenant', %(tenant)s, true), set_config('transaction_read_only', 'on', true)
