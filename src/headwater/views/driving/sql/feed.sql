-- name: part
-- OFFSET 0 keeps each expression from being evaluated more than once.
COPY (
  SELECT {written} FROM (
    SELECT {values} FROM headwater.events AS e
    WHERE e.position > {after} AND e.position <= {upto} AND e.type = {type} AND e.position <> ALL ({aside}::bigint[])
    ORDER BY e.position OFFSET 0
  ) AS row_of
) TO STDOUT (FORMAT csv)

-- name: text
({expression})::text

-- name: microseconds
(extract(epoch FROM {expression}) * 1000000)::bigint

-- name: limited_number
(CASE WHEN {expression} IS NULL
        OR abs({expression}) < {bound}::numeric
           AND (scale({expression}) <= {decimals} OR scale(trim_scale({expression})) <= {decimals})
      THEN {expression}
      -- The cast fails, and its message is the reason.
      ELSE ({expression}::text || ' has more than ' || {digits} || ' digits or ' || {decimals} || ' decimals')::numeric END)

-- name: limited_date
-- The bounds are literals of the value's own type, so no value is cast.
(CASE WHEN {expression} IS NULL OR {expression} >= {first} AND {expression} < {beyond}
      THEN {expression}
      ELSE ({expression}::text || ' is not from ' || {first} || ' to ' || {last})::{type} END)
