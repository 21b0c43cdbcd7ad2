-- name: lazy_commit
SET synchronous_commit = off

-- name: snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: end
ROLLBACK
