-- name: of_key
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND e.type = ANY (%(types)s) AND e.position <= %(upto)s
  AND %(key)s = ANY (SELECT e.data ->> f.name FROM unnest(%(fields)s::text[]) AS f(name))
  AND (%(recorded)s::timestamptz IS NULL OR e.recorded_at <= %(recorded)s)
  AND (%(occurred)s::timestamptz IS NULL OR coalesce(e.occurred_at, e.recorded_at) <= %(occurred)s)
  AND e.position NOT IN (SELECT p.position FROM headwater.parked AS p WHERE p.view = %(view)s AND p.tenant = e.tenant AND p.status <> 'parked')
ORDER BY e.position

-- name: of_streams
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.streams AS s
CROSS JOIN LATERAL (
  SELECT * FROM headwater.events AS e
  WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position) AS e
WHERE s.tenant = %(tenant)s AND s.stream = ANY (%(streams)s) AND e.type = ANY (%(types)s) AND e.position <= %(upto)s
  AND (%(recorded)s::timestamptz IS NULL OR e.recorded_at <= %(recorded)s)
  AND (%(occurred)s::timestamptz IS NULL OR coalesce(e.occurred_at, e.recorded_at) <= %(occurred)s)
  AND e.position NOT IN (SELECT p.position FROM headwater.parked AS p WHERE p.view = %(view)s AND p.tenant = e.tenant AND p.status <> 'parked')
ORDER BY e.position

-- name: all
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND e.type = ANY (%(types)s) AND e.position > %(after)s AND e.position <= %(upto)s
ORDER BY e.position LIMIT %(max_rows)s
