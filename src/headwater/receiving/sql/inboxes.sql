-- name: create
INSERT INTO headwater.inboxes (inbox, source, channel) VALUES (%(inbox)s, %(source)s, %(channel)s)
ON CONFLICT (inbox) DO UPDATE SET channel = excluded.channel, sequence = 0, revision = headwater.inboxes.revision + 1
WHERE headwater.inboxes.channel <> excluded.channel

-- name: channel
SELECT channel FROM headwater.inboxes WHERE inbox = %(inbox)s

-- name: lazy_commit
-- Events and place are one commit. What a crash takes back is received again; readers see only what the watermark has
-- flushed.
SET synchronous_commit = off

-- name: take_over
UPDATE headwater.inboxes SET fence = %(fence)s WHERE inbox = %(inbox)s AND fence <= %(fence)s AND headwater.goes_on()
RETURNING channel, log, epoch, position, upto, sequence, revision, (SELECT l.log_id FROM headwater.log AS l)

-- name: move
UPDATE headwater.inboxes
SET log = %(log)s, epoch = %(epoch)s, position = %(position)s, upto = %(upto)s, sequence = %(sequence)s,
    appended = greatest(appended, %(appended)s), updated_at = clock_timestamp()
WHERE inbox = %(inbox)s AND fence = %(fence)s AND revision = %(revision)s

-- name: waiting
SELECT tenant, stream FROM headwater.inbox_parked WHERE inbox = %(inbox)s AND status = 'parked' GROUP BY tenant, stream

-- name: park
INSERT INTO headwater.inbox_parked (inbox, sequence, position, tenant, stream, message, reason, culprit)
VALUES (%(inbox)s, %(sequence)s, %(position)s, %(tenant)s, %(stream)s, %(message)s, %(reason)s, %(culprit)s)
ON CONFLICT (inbox, position, sequence) DO UPDATE SET reason = excluded.reason

-- name: disturb
UPDATE headwater.inboxes SET revision = revision + 1 WHERE inbox = %(inbox)s RETURNING log

-- name: parked
SELECT position, sequence, tenant, stream, message, reason, culprit, status, parked_at FROM headwater.inbox_parked
WHERE inbox = %(inbox)s AND status = ANY (%(statuses)s) AND (%(positions)s::bigint[] IS NULL OR position = ANY (%(positions)s))
ORDER BY position, sequence
LIMIT %(limit)s

-- name: unpark
DELETE FROM headwater.inbox_parked WHERE inbox = %(inbox)s AND position = %(position)s AND sequence = %(sequence)s

-- name: blame
UPDATE headwater.inbox_parked SET reason = %(reason)s, culprit = %(culprit)s
WHERE inbox = %(inbox)s AND position = %(position)s AND sequence = %(sequence)s

-- name: discard
UPDATE headwater.inbox_parked SET status = 'discarded'
WHERE inbox = %(inbox)s AND status = 'parked' AND position = ANY (%(positions)s)

-- name: appended
UPDATE headwater.inboxes SET appended = greatest(appended, %(appended)s) WHERE inbox = %(inbox)s

-- name: accept
WITH given_back AS (
  UPDATE headwater.leases SET expires_at = '-infinity' WHERE name = %(inbox)s
) UPDATE headwater.inboxes
SET log = NULL, epoch = NULL, position = coalesce(%(after)s, position), upto = coalesce(%(after)s, position),
    revision = revision + 1
WHERE inbox = %(inbox)s
RETURNING position

-- name: list
SELECT i.inbox, i.channel, i.log, i.epoch, i.position, i.upto, i.sequence,
       (SELECT count(*)::int FROM headwater.inbox_parked AS p WHERE p.inbox = i.inbox AND p.status = 'parked'),
       headwater.state_of(l), CASE WHEN headwater.is_held(l) THEN l.holder END, l.detail, i.updated_at
FROM headwater.inboxes AS i LEFT JOIN headwater.leases AS l ON l.name = i.inbox
ORDER BY i.inbox

-- name: receive
SELECT headwater.receive(
  %(inbox)s, %(fence)s, %(revision)s, %(log)s, %(epoch)s, %(position)s, %(upto)s, %(sequence)s, %(tenant)s,
  %(streams)s, %(types)s, %(data)s, %(groups)s, %(metadata)s, %(keys)s, %(occurred_at)s, %(schema_versions)s)
