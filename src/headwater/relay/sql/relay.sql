-- name: acquire
INSERT INTO headwater.leases AS l (name, holder, fence, expires_at, session)
VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(seconds)s), pg_backend_pid())
ON CONFLICT (name) DO UPDATE
  SET holder = excluded.holder, expires_at = excluded.expires_at, session = excluded.session, state = 'running',
      detail = NULL, fence = l.fence + 1
  WHERE NOT headwater.is_held(l)
RETURNING fence

-- name: renew
UPDATE headwater.leases AS l
SET expires_at = clock_timestamp() + make_interval(secs => %(seconds)s), session = pg_backend_pid(),
    state = h.state, detail = h.detail
FROM unnest(%(names)s::text[], %(states)s::text[], %(details)s::text[]) AS h(name, state, detail)
WHERE l.name = h.name AND l.holder = %(holder)s AND l.expires_at > clock_timestamp()
RETURNING l.name

-- name: release
UPDATE headwater.leases SET expires_at = '-infinity', state = %(state)s, detail = %(detail)s
WHERE name = %(name)s AND holder = %(holder)s

-- name: live_relays
SELECT l.detail FROM headwater.leases AS l WHERE l.name LIKE 'relay/%%' AND headwater.is_held(l)

-- name: forget_relays
DELETE FROM headwater.leases WHERE name LIKE 'relay/%%' AND expires_at < clock_timestamp() - interval '1 minute'

-- name: maintain
SELECT headwater.maintain_blocks(), headwater.enter_block(), headwater.purge_idempotency(), headwater.purge_rates(), headwater.purge_snapshots(), headwater.purge_sagas()

-- name: end_idle
SELECT pid, idle_seconds FROM headwater.end_idle_appenders()

-- name: check_epoch
SELECT headwater.check_epoch()

-- name: checkpoints
SELECT view, position FROM headwater.checkpoints WHERE view = ANY (%(views)s)

-- name: traces
SELECT DISTINCT s.trace FROM (
  SELECT e.metadata->>'trace' AS trace FROM headwater.events AS e
  WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.metadata ? 'trace' LIMIT 1000) AS s
LIMIT %(max_rows)s
