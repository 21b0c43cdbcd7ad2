-- name: observe
SELECT drawn, holders FROM headwater.observe(%(known)s)

-- name: flush_and_publish
CALL headwater.flush_and_publish(%(decided)s)

-- name: durable
SET synchronous_commit = on
