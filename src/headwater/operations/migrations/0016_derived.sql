-- Derived events: a fold that decides on events of its own appends them in the commit of its batch. Those
-- of the positions up to `derived_upto` have been decided on by an earlier generation, and are never again.
SET ROLE headwater_owner;
ALTER TABLE headwater.checkpoints ADD COLUMN derived_upto bigint NOT NULL DEFAULT 0;
GRANT EXECUTE ON FUNCTION headwater.append, headwater.append_groups, headwater.require TO headwater_relay;
RESET ROLE;
