-- The batch that a view in another store is about to write. It is recorded before the first attempt and
-- written again with the same boundaries by whoever goes on, so that what is named after it, or what an
-- engine recognises it by, is the same batch.
SET ROLE headwater_owner;

CREATE TABLE headwater.planned (
  view text PRIMARY KEY REFERENCES headwater.views ON DELETE CASCADE,
  generation int NOT NULL,
  after_position bigint NOT NULL,
  upto bigint NOT NULL
) WITH (fillfactor = 10);

GRANT SELECT ON headwater.planned TO headwater_operator;
GRANT SELECT, INSERT, UPDATE, DELETE ON headwater.planned TO headwater_relay;
RESET ROLE;
