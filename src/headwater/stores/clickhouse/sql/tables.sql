-- name: create
CREATE TABLE IF NOT EXISTS $table$on_cluster (
  $columns
) ENGINE = $engine
ORDER BY ($order)
SETTINGS $layout

-- name: create_inbox
CREATE TABLE IF NOT EXISTS $inbox$on_cluster (
  $columns
) ENGINE = Null

-- name: create_materialized
CREATE MATERIALIZED VIEW IF NOT EXISTS $materialized$on_cluster TO $table AS
SELECT $keys, $states, max(headwater_upto) AS headwater_upto
FROM $inbox
GROUP BY $keys

-- name: show
CREATE OR REPLACE VIEW $name$on_cluster AS
SELECT $outputs
FROM (SELECT $keys, $merged FROM $table AS groups GROUP BY $keys)

-- name: written
SELECT max(headwater_upto) FROM $table $reading

-- name: old
SELECT count() FROM (SELECT 1 FROM $table WHERE $bucket < {before:DateTime64(6, 'UTC')} LIMIT 1 $reading)

-- name: forget
ALTER TABLE $table$on_cluster DELETE WHERE $bucket < {before:DateTime64(6, 'UTC')} SETTINGS mutations_sync = 2

-- name: describe
SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}

-- name: read
SELECT $outputs FROM $shown WHERE $condition ORDER BY $order LIMIT {limit:UInt64} $reading

-- name: export
SELECT $exported, headwater_upto
FROM (SELECT $keys, $merged, max(groups.headwater_upto) AS headwater_upto FROM $table AS groups GROUP BY $keys)
$reading FORMAT CSV

-- name: entry
if(isNull($entry), map(), map(bitShiftRight(assumeNotNull($entry), 40), toUInt64(bitAnd(assumeNotNull($entry), 1099511627775))))

-- name: exported_sketch
if(empty($state), NULL, concat('{', arrayStringConcat(arrayMap((k, v) -> toString(k * 1099511627776 + v), mapKeys($state), mapValues($state)), ','), '}'))

-- name: ordered_value
substringUTF8($state, 41)

-- name: quantile
-- The first bucket, from below, with which more values are reached than lie before the quantile.
if(empty($state), NULL, arrayElement(arrayMap(
  k -> if(k = 0, 0, sign(k) * 2 * pow($gamma, abs(k) - 50000) / (1 + $gamma)), mapKeys($state)
), arrayFirstIndex(
  upto -> upto > floor($level * (arraySum(mapValues($state)) - 1)), arrayCumSum(mapValues($state))
)))

-- name: distinct
(arrayMap((used, rest) -> if((0.7213 / (1 + 1.079 / 4096)) * 4096 * 4096 / (4096 - used + rest) <= 10240 AND used < 4096,
  toInt64(round(4096 * log(4096 / (4096 - used)))), toInt64(round((0.7213 / (1 + 1.079 / 4096)) * 4096 * 4096 / (4096 - used + rest)))),
  [length(mapKeys($state))], [arraySum(v -> pow(2, -toInt64(v)), mapValues($state))])[1])

-- name: of_tenant
$name AS (SELECT * FROM $shown WHERE tenant = {tenant:String})
