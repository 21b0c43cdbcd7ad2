-- name: lazy_commit
SET synchronous_commit = off

-- name: snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: patient
-- In between another store is written, or functions of the app's are called: both may be slow.
SET LOCAL idle_in_transaction_session_timeout = '60s'

-- name: end
ROLLBACK
