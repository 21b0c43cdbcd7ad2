-- From where on a fold's changes are kept, beyond what the SQL views over its documents still need. Live
-- channels tell from them which rows of those views have changed, and say so where they no longer can.
SET ROLE headwater_owner;
ALTER TABLE headwater.checkpoints ADD COLUMN changes_from bigint NOT NULL DEFAULT 0;
RESET ROLE;
