-- name: drawn
SELECT last_value - (NOT is_called)::int FROM headwater.position_seq

-- name: holders
SELECT l.virtualtransaction
FROM pg_locks AS l
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation = 'headwater.position_seq'::regclass AND l.pid IS DISTINCT FROM pg_backend_pid()

-- name: publish
SELECT headwater.publish(%(decided)s)

-- name: durable
SET synchronous_commit = on
