-- Checkpoints: rows are only added. The highest fence counts, and under it the highest number, so a row of a
-- holder that was overtaken is harmless wherever it lands. {names} are parameters, $names are put in as they are.

-- name: create_database
CREATE DATABASE IF NOT EXISTS $database$on_cluster$engine

-- name: create
CREATE TABLE IF NOT EXISTS $table$on_cluster (
  log String,
  view String,
  generation UInt32,
  fence UInt64,
  number UInt64,
  position UInt64,
  epoch UInt64,
  revision UInt64,
  last_position Nullable(UInt64),
  last_id Nullable(UUID),
  written_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')
) ENGINE = $engine ORDER BY (log, view, generation, fence)

-- name: newest
SELECT fence, number, position, epoch, revision, last_position, last_id
FROM $table
WHERE log = {log:String} AND view = {view:String} AND generation = {generation:UInt32}
ORDER BY fence DESC, number DESC
LIMIT 1
$reading

-- name: guard
throwIf((
  SELECT argMax((fence, position), (fence, number)) FROM $table
  WHERE log = {log:String} AND view = {view:String} AND generation = {generation:UInt32}
) != ({fence:UInt64}, {after:UInt64}), 'headwater: the lease is lost') = 0

-- name: begin
INSERT INTO $table (log, view, generation, fence, number, position, epoch, revision, last_position, last_id)
$settings
SELECT {log:String}, {view:String}, {generation:UInt32}, {fence:UInt64}, {number:UInt64}, {upto:UInt64},
       {epoch:UInt64}, {revision:UInt64}, {last_position:Nullable(UInt64)}, {last_id:Nullable(UUID)}

-- name: move
INSERT INTO $table (log, view, generation, fence, number, position, epoch, revision, last_position, last_id)
$settings
SELECT log, view, generation, fence, number + 1, {upto:UInt64}, {epoch:UInt64}, revision,
       if({last_position:Nullable(UInt64)} IS NULL, last_position, {last_position:Nullable(UInt64)}),
       if({last_position:Nullable(UInt64)} IS NULL, last_id, {last_id:Nullable(UUID)})
FROM $table
WHERE log = {log:String} AND view = {view:String} AND generation = {generation:UInt32} AND $guard
ORDER BY fence DESC, number DESC
LIMIT 1

-- name: old
SELECT count() FROM $table WHERE log = {log:String} AND view = {view:String} AND generation < {generation:UInt32}
  AND NOT has({kept:Array(UInt32)}, generation)

-- name: forget
ALTER TABLE $table$on_cluster DELETE
WHERE log = '$log' AND view = '$view' AND generation < $generation AND generation NOT IN ($kept)
SETTINGS mutations_sync = 2

-- name: tables
SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})

-- name: shown
-- What readers see of one generation.
SELECT name FROM system.tables
WHERE database = {database:String} AND engine = 'View' AND (name = {prefix:String} OR startsWith(name, concat({prefix:String}, '/')))

-- name: named
-- The names of a view that other programs read.
SELECT name FROM system.tables
WHERE database = {database:String} AND engine = 'View' AND position(as_select, {generations:String}) > 0
  AND (name = {view:String} OR startsWith(name, concat({view:String}, '.')))

-- name: publish
CREATE OR REPLACE VIEW $name$on_cluster AS SELECT * FROM $shown

-- name: drop
DROP TABLE IF EXISTS $table$on_cluster SYNC
