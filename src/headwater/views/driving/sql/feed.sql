-- name: part
COPY (
  SELECT {columns} FROM headwater.events AS e
  WHERE e.position > {after} AND e.position <= {upto} AND e.type = {type} AND e.position <> ALL ({aside}::bigint[])
  ORDER BY e.position
) TO STDOUT (FORMAT csv)

-- name: text
({expression})::text

-- name: microseconds
(extract(epoch FROM {expression}) * 1000000)::bigint

-- name: limited_number
(CASE WHEN abs({expression}) < {bound}::numeric AND scale(trim_scale({expression})) <= {decimals} OR ({expression}) IS NULL
      THEN {expression}
      -- The cast fails, and its message is the reason.
      ELSE (({expression})::text || ' has more than ' || {digits} || ' digits or ' || {decimals} || ' decimals')::numeric END)

-- name: limited_date
(CASE WHEN ({expression})::date BETWEEN {first} AND {last} OR ({expression}) IS NULL
      THEN {expression}
      ELSE (({expression})::text || ' is not from ' || {first} || ' to ' || {last})::{type} END)
