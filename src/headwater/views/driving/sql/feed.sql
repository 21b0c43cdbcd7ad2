-- name: part
-- OFFSET 0 keeps each expression from being evaluated more than once.
COPY (
  SELECT {written} FROM (
    SELECT {values} FROM headwater.events AS e
    WHERE e.position > {after} AND e.position <= {upto} AND e.type = {type} AND e.position <> ALL ({aside}::bigint[])
      AND ({only}::bigint[] IS NULL OR e.position = ANY ({only}::bigint[]))
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

-- name: marked
-- A sealed text that is to be opened, with what says whose it is and where. It is opened on its way out.
(CASE WHEN {expression} LIKE 'hw1.%' THEN {marker} || e.position || ':' || encode(convert_to(e.tenant, 'UTF8'), 'hex') || ':' || {expression}
      ELSE {expression} END)
