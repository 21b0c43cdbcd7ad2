-- name: drawn
SELECT coalesce(pg_sequence_last_value('headwater.position_seq'::regclass), -1)

-- name: holders
SELECT l.virtualtransaction
FROM pg_locks AS l
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation = 'headwater.position_seq'::regclass AND l.pid IS DISTINCT FROM pg_backend_pid()

-- name: flush
SELECT pg_logical_emit_message(true, 'headwater', '')

-- name: publish
SELECT headwater.publish(%(decided)s)

-- name: durable
SET synchronous_commit = on
