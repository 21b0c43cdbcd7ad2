-- name: places
-- Of views, and of what comes from other services, by name: from/APP.
SELECT view, position FROM headwater.checkpoints WHERE view = ANY (%(views)s)
UNION ALL
SELECT 'from/' || i.source, min(i.upto) FROM headwater.inboxes AS i
WHERE 'from/' || i.source = ANY (%(views)s) AND i.inbox = ANY (%(inboxes)s) GROUP BY i.source

-- name: source
-- Or one of a source that has not been heard of: it may be that.
SELECT i.source, i.epoch FROM headwater.inboxes AS i WHERE (i.log = %(log)s OR i.log IS NULL) AND i.inbox = ANY (%(inboxes)s)
ORDER BY i.log NULLS LAST LIMIT 1

-- name: received
SELECT max(i.appended), headwater.parked_upto(%(inboxes)s, %(source)s, %(tenant)s, %(position)s)
FROM headwater.inboxes AS i WHERE i.source = %(source)s AND i.inbox = ANY (%(inboxes)s)

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
