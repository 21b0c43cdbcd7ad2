-- name: lock
SELECT pg_advisory_lock(hashtextextended('headwater.migrate', 0))

-- name: ledger_exists
SELECT to_regclass('headwater.migrations')

-- name: ledger
SELECT number, checksum FROM headwater.migrations ORDER BY number

-- name: record
INSERT INTO headwater.migrations (number, name, checksum) VALUES (%(number)s, %(name)s, %(checksum)s)

-- name: login_exists
SELECT 1 FROM pg_roles WHERE rolname = %(login)s
