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

-- name: describe
SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String}

-- name: read
SELECT $outputs FROM $shown WHERE $condition ORDER BY $order LIMIT {limit:UInt64} $reading

-- name: export
SELECT $keys, $merged, max(groups.headwater_upto) FROM $table AS groups GROUP BY $keys $reading FORMAT CSV
