-- name: create
CREATE TABLE IF NOT EXISTS $table$on_cluster (
  $columns
) ENGINE = $engine
PARTITION BY toYYYYMM(addMonths(toDate('2020-01-01'), bitShiftRight(position, 40)))
ORDER BY ($order)
$ttl
SETTINGS $layout

-- name: ttl
TTL addMonths(toDate('2020-01-01'), bitShiftRight(position, 40) + 1 + $months)

-- name: tables
SELECT name FROM system.tables
WHERE database = {database:String} AND startsWith(name, {prefix:String}) AND engine != 'View'

-- name: show
CREATE OR REPLACE VIEW $name$on_cluster AS
SELECT * FROM $table
WHERE position <= (
  SELECT argMax(position, (fence, number)) FROM $checkpoints
  WHERE log = '$log' AND view = '$view' AND generation = $generation
)

-- name: show_all
CREATE OR REPLACE VIEW $name$on_cluster AS
$parts

-- name: part
SELECT $columns FROM $shown

-- name: insert
INSERT INTO $table ($columns)
$settings
SELECT $values
FROM input('$structure')
WHERE $guard
FORMAT CSV

-- name: is_written
SELECT count() FROM (
  SELECT 1 FROM $table WHERE position > {after:UInt64} AND position <= {upto:UInt64} LIMIT 1 $reading
)

-- name: beyond
SELECT count() FROM $table WHERE position > {upto:UInt64} $reading

-- name: trim
ALTER TABLE $table$on_cluster DELETE WHERE position > $upto SETTINGS mutations_sync = 2

-- name: files
SELECT bitShiftRight(position, 40) AS block, intDiv(position, $size) AS chunk, count()
FROM $table
WHERE position > {after:UInt64} AND position <= {upto:UInt64}
GROUP BY block, chunk
ORDER BY block, chunk
$reading

-- name: create_scratch
CREATE TABLE $scratch AS $table ENGINE = Memory

-- name: fill_scratch
INSERT INTO $scratch ($columns)
$settings
SELECT $values
FROM input('$structure')
FORMAT CSV

-- name: hashes
-- Of a tuple: of arguments the hash is NULL where any of them is.
SELECT count(), groupBitXor(sipHash64(tuple(*))), sum(sipHash64(tuple(*))) FROM $table
WHERE position > {after:UInt64} AND position <= {upto:UInt64}
$reading

-- name: differing
SELECT DISTINCT position FROM (
  SELECT position, sum(side) AS surplus FROM (
    SELECT position, sipHash64(tuple(*)) AS content, 1 AS side FROM $scratch
    UNION ALL
    SELECT position, sipHash64(tuple(*)) AS content, -1 AS side FROM $table
    WHERE position > {after:UInt64} AND position <= {upto:UInt64}
  ) GROUP BY position, content
) WHERE surplus != 0 ORDER BY position LIMIT {limit:UInt64}
$reading

-- name: purge
ALTER TABLE $table$on_cluster DELETE WHERE position IN ($positions) SETTINGS mutations_sync = 2

-- name: create_like
CREATE TABLE $other AS $table

-- name: months
SELECT _partition_id, max(position IN ($positions)) FROM $table GROUP BY _partition_id

-- name: copy_month
INSERT INTO $other $settings SELECT * FROM $table WHERE _partition_id = '$month' AND position NOT IN ($positions)

-- name: share_month
ALTER TABLE $other ATTACH PARTITION ID '$month' FROM $table

-- name: exchange
EXCHANGE TABLES $table AND $other

-- name: recompute
$select
SETTINGS enable_extended_results_for_datetime_functions = 1, prefer_column_name_to_alias = 1,
  aggregate_functions_null_for_empty = 0, join_use_nulls = 1, format_csv_null_representation = ''$reading
FORMAT CSV
