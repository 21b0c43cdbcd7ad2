-- The frame of a recomputation, in SQL that every engine has; $names are put in. Names that begin with hw_ are the
-- statement's own, so that none of the user's can be taken for another.

-- name: rows
SELECT $columns FROM $table WHERE $within

-- name: within
$position <= $upto

-- name: within_but
$position <= $upto AND $position NOT IN ($aside)

-- name: branch
SELECT $columns FROM ($rows) AS hw_s WHERE $condition

-- name: united
$first UNION ALL $second

-- name: groups
SELECT $shown FROM (SELECT $evaluated FROM ($source) AS hw_s WHERE $condition) AS hw_r GROUP BY $keys

-- name: measured
SELECT $type, $column, max($digits), max($decimals) FROM $table WHERE $within

-- name: named
$value AS $name

-- name: only_where
CASE WHEN $condition THEN $value END

-- name: always
(1 = 1)
