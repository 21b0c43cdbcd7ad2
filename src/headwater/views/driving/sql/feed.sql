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
