-- The newest generation that a view has had. None is used twice: a store outside this database removes what
-- it holds of a generation later than this database forgets it.
SET ROLE headwater_owner;
ALTER TABLE headwater.views ADD COLUMN newest int NOT NULL DEFAULT 1;
UPDATE headwater.views AS v SET newest = (
  SELECT max(n.generation) FROM headwater.views AS n WHERE split_part(n.view, '~', 1) = split_part(v.view, '~', 1));
RESET ROLE;
