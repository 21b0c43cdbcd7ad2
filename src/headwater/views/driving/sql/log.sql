-- name: events
SELECT e.position, e.tenant, e.type, e.schema_version, e.data::text
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND (%(slices)s::int = 1 OR
       (hashtextextended(e.tenant || chr(31) || coalesce(e.data ->> %(slice_key)s::text, ''), 0) & 1073741823) %% %(slices)s = %(slice)s)
ORDER BY e.position

-- name: identified_events
SELECT e.position, e.tenant, e.type, e.schema_version, e.data::text, uuid_send(e.id)
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND (%(slices)s::int = 1 OR
       (hashtextextended(e.tenant || chr(31) || coalesce(e.data ->> %(slice_key)s::text, ''), 0) & 1073741823) %% %(slices)s = %(slice)s)
ORDER BY e.position

-- name: recorded_events
SELECT e.position, e.tenant, e.type, e.schema_version, e.data::text,
       e.stream, e.version, e.id, e.recorded_at, e.occurred_at, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND (%(slices)s::int = 1 OR
       (hashtextextended(e.tenant || chr(31) || coalesce(e.data ->> %(slice_key)s::text, ''), 0) & 1073741823) %% %(slices)s = %(slice)s)
ORDER BY e.position

-- name: safe
SELECT last_value - (NOT is_called)::int FROM headwater.safe

-- name: identity
SELECT log_id, epoch FROM headwater.log

-- name: id_at
SELECT uuid_send(e.id) FROM headwater.events AS e WHERE e.position = %(position)s

-- name: newest
SELECT e.position, uuid_send(e.id) FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
ORDER BY e.position DESC LIMIT 1

-- name: count
SELECT count(*) FROM headwater.events AS e
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND e.position <> ALL (%(aside)s::bigint[])

-- name: touched
SELECT DISTINCT jsonb_build_array(e.tenant, k.key)::text
FROM headwater.events AS e
CROSS JOIN LATERAL (SELECT e.data ->> f.name AS key FROM unnest(%(keys)s::text[]) AS f(name) WHERE e.data ? f.name LIMIT 1) AS k
WHERE e.position > %(after)s AND e.position <= %(upto)s AND e.type = ANY (%(types)s)
  AND e.position <> ALL (%(parked)s::bigint[]) AND k.key IS NOT NULL

-- name: correlations
SELECT e.position, jsonb_strip_nulls(jsonb_build_object('correlation', e.metadata->'correlation', 'trace', e.metadata->'trace'))
FROM headwater.events AS e WHERE e.position = ANY (%(positions)s)

-- name: of_key
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND e.type = ANY (%(types)s) AND e.position <= %(upto)s 
  AND %(key)s = ANY (SELECT e.data ->> f.name FROM unnest(%(fields)s::text[]) AS f(name))
ORDER BY e.position

-- name: of_streams
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.streams AS s
CROSS JOIN LATERAL (
  SELECT * FROM headwater.events AS e
  WHERE e.tenant = s.tenant AND e.stream = s.stream AND e.position >= s.first_position) AS e
WHERE s.tenant = %(tenant)s AND s.stream = ANY (%(streams)s) AND e.type = ANY (%(types)s) AND e.position <= %(upto)s
ORDER BY e.position

-- name: at_positions
SELECT e.position, e.tenant, e.stream, e.version, e.type, e.schema_version, e.id, e.recorded_at, e.occurred_at,
       e.data::text, e.metadata::text, e.keys
FROM headwater.events AS e WHERE e.position = ANY (%(positions)s) ORDER BY e.position
