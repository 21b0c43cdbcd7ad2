-- name: template
CREATE DATABASE template_log

-- name: another_log
-- Clones are one log; services have one each.
UPDATE headwater.log SET log_id = left(replace(gen_random_uuid()::text, '-', ''), 8)

-- name: own
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO headwater_app, headwater_owner', current_database()); END $$

-- name: tell_again
UPDATE headwater.inboxes SET sequence = greatest(sequence - %(back)s, 0), revision = revision + 1
