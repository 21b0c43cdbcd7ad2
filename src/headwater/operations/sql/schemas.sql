-- name: registered
SELECT t.type, t.schema_version, t.stream_pattern, t.schema FROM headwater.event_types AS t
WHERE t.type = ANY (%(types)s) ORDER BY t.type, t.schema_version

-- name: counts
SELECT e.type, e.schema_version, count(*) FROM headwater.events AS e
WHERE e.type = ANY (%(types)s) GROUP BY 1, 2

-- name: some
(SELECT e.position FROM headwater.events AS e
 WHERE e.type = %(type)s AND e.schema_version = %(schema_version)s ORDER BY e.position LIMIT %(half)s)
UNION
(SELECT e.position FROM headwater.events AS e
 WHERE e.type = %(type)s AND e.schema_version = %(schema_version)s ORDER BY e.position DESC LIMIT %(half)s)
ORDER BY 1

-- name: next
SELECT e.position FROM headwater.events AS e
WHERE e.type = %(type)s AND e.schema_version = %(schema_version)s AND e.position > %(after)s
ORDER BY e.position LIMIT %(max_rows)s

-- name: data
SELECT e.position, e.data::text FROM headwater.events AS e WHERE e.position = ANY (%(positions)s) ORDER BY e.position
