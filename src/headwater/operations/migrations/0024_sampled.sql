-- What the newest comparison of each view with the log found. A sample that differs is compared again until
-- it no longer does, so a difference stays until it is mended or the view is rebuilt.
SET ROLE headwater_owner;
CREATE TABLE headwater.sampled (
  view text PRIMARY KEY REFERENCES headwater.views ON DELETE CASCADE,
  generation int NOT NULL,
  slices int NOT NULL CHECK (slices > 0),
  slice int NOT NULL,
  compared bigint NOT NULL DEFAULT 0,
  differing bigint NOT NULL DEFAULT 0,
  detail text,
  tried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  verified_at timestamptz
);
COMMENT ON COLUMN headwater.sampled.slice IS 'Of this many slices, the one that was compared; slices = 1: the whole view.';

GRANT SELECT ON headwater.sampled TO headwater_operator;
GRANT SELECT, INSERT, UPDATE ON headwater.sampled TO headwater_relay;
RESET ROLE;
