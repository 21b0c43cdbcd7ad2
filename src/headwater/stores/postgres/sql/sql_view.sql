-- Statements of incremental SQL views. {braces} are composed by psycopg.sql, %(names)s are
-- parameters. Positions in a batch are (after, upto], without the parked ones.

-- name: events_source
(SELECT e.tenant AS headwater_tenant{columns}
   FROM headwater.events AS e
  WHERE e.type = {type} AND {window}) AS {alias}

-- name: events_in_batch
e.position > %(after)s::bigint
    AND e.position <= %(upto)s::bigint
    AND e.position <> ALL (%(parked)s::bigint[])

-- name: events_at_position
e.position = %(position)s::bigint

-- name: events_of_one
e.position = headwater_event.position

-- name: events_among
e.position = ANY (%(positions)s::bigint[])

-- name: events_up_to
e.position <= %(upto)s::bigint
    AND e.position <> ALL (%(parked)s::bigint[])

-- name: changes_source
(SELECT e.tenant AS headwater_tenant, e.sign AS headwater_sign{columns}
   FROM (SELECT changed.tenant, changed.key, version.data, version.sign
           FROM {changes} AS changed
          CROSS JOIN LATERAL (VALUES (changed.old, -1), (changed.new, 1)) AS version (data, sign)
          WHERE version.data IS NOT NULL AND {window}) AS e) AS {alias}

-- name: changes_in_batch
changed.after_position > %(after)s::bigint
            AND changed.after_position <= %(upto)s::bigint
            AND changed.after_position <> ALL (%(parked)s::bigint[])

-- name: changes_at_position
changed.after_position = %(position)s::bigint

-- name: documents_source
(SELECT e.tenant AS headwater_tenant, 1 AS headwater_sign{columns}
   FROM {documents} AS e) AS {alias}

-- name: no_documents
(SELECT NULL::text AS tenant, NULL::text AS key, NULL::jsonb AS data)

-- name: branch
SELECT headwater_tenant{sign}{projections}
  FROM {source}{where}

-- name: describe
SELECT {columns}
  FROM {source}{where}{group_by}
 LIMIT 0

-- name: type_names
SELECT pg_catalog.format_type(described.type, described.modifier)
  FROM unnest(%(types)s::oid[], %(modifiers)s::integer[])
       WITH ORDINALITY AS described (type, modifier, place)
 ORDER BY described.place

-- name: moved
moved AS ({advance})

-- name: has_moved
(SELECT position FROM moved) IS NOT NULL

-- name: merge
{opening}INSERT INTO {table} AS stored ({columns})
SELECT {selected}
  FROM {source}{where}
 GROUP BY {group_by}{merged}

-- name: merged
ON CONFLICT ({keys}) DO {resolution}

-- name: roomy
SET LOCAL work_mem = '64MB'

-- name: merge_documents
WITH merged AS (
    {merge}
    RETURNING stored.ctid AS place, stored.{rows} AS remaining
)
SELECT array_agg(place) FILTER (WHERE remaining = 0)::text FROM merged

-- name: remove_emptied
-- A row's place holds until the transaction ends: the merge was the last to write it, and a
-- view has one writer.
DELETE FROM {table} WHERE ctid = ANY (%(emptied)s::text::tid[]) AND {rows} = 0

-- name: merge_distinct
-- The batch is evaluated once. Values not seen before come back from their table as rows beside
-- the batch's own, so that one GROUP BY brings both together, NULL keys included.
WITH {opening}batch AS MATERIALIZED (
    SELECT {evaluated}
      FROM {source}{where}
){fresh}
INSERT INTO {table} AS stored ({columns})
SELECT {selected}
  FROM (SELECT {batch_columns}, 0 AS origin FROM batch{fresh_rows}) AS contribution
 GROUP BY {group_by}
ON CONFLICT ({keys}) DO {resolution}

-- name: fresh
, {name} AS (
    INSERT INTO {table} ({columns}, value)
    SELECT DISTINCT {columns}, {value} FROM batch WHERE {value} IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING {columns}
)

-- name: fresh_rows
 UNION ALL SELECT {columns}{nulls}, {origin} FROM {name}

-- name: kept_from_newest
-- By the log's time, so that a rebuild keeps what was kept.
(SELECT newest.recorded_at FROM headwater.events AS newest
  WHERE newest.position <= %(upto)s::bigint ORDER BY newest.position DESC LIMIT 1)
- make_interval(secs => {seconds}::double precision)

-- name: kept_from_any
-- At or after every bound by which groups were removed so far, though recorded times are not in order.
(SELECT max(newest.recorded_at) FROM headwater.events AS newest WHERE newest.position <= %(upto)s::bigint)
- make_interval(secs => {seconds}::double precision)

-- name: forget
DELETE FROM {table} WHERE {bucket} < {bound}

-- name: keys_of
SELECT DISTINCT jsonb_build_array({keys})::text FROM {source}

-- name: unmatched
SELECT CASE WHEN counted.surplus > 0 THEN 'stored' ELSE 'expected' END AS side, {columns} FROM (
    SELECT {columns}, sum(CASE side WHEN 'stored' THEN 1 ELSE -1 END) AS surplus
    FROM compared GROUP BY {columns}) AS counted
CROSS JOIN generate_series(1, abs(counted.surplus))
WHERE counted.surplus <> 0

-- name: compared
WITH expected AS (
    SELECT {expected} FROM {source}{where} GROUP BY {group_by}{having}
), stored AS (
    SELECT {stored} FROM {table}{kept}
), both_sides AS (
    SELECT 'expected' AS side, * FROM expected UNION ALL SELECT 'stored' AS side, * FROM stored
), compared AS (
    SELECT side, {compared} FROM both_sides{window}
), differing AS (
    {unmatched}
)

-- name: in_slice
(hash_record_extended(ROW({keys}), 0) & 9223372036854775807) %% %(slices)s::bigint = %(slice)s::bigint

-- name: verify
{compared}
SELECT differing.side, differing.tenant,
       (SELECT to_jsonb(shown) FROM (SELECT {shown}) AS shown) AS row
  FROM differing
 WHERE jsonb_build_array({keys}) <> ALL (%(parked_keys)s::jsonb[])
 LIMIT %(limit)s::bigint

-- name: verify_count
{compared}
SELECT (SELECT count(*) FROM expected
         WHERE %(parked_keys)s::jsonb[] = '{{}}' OR jsonb_build_array({keys}) <> ALL (%(parked_keys)s::jsonb[])) AS groups,
       (SELECT count(*) FROM differing
         WHERE jsonb_build_array({keys}) <> ALL (%(parked_keys)s::jsonb[])) AS differing

-- name: within_tolerance
CASE WHEN count({column}) OVER same_group = 2
      AND max({column}) OVER same_group - min({column}) OVER same_group
          <= {tolerance}::double precision
             * greatest(1, abs(max({column}) OVER same_group), abs(min({column}) OVER same_group))
     THEN max({column}) OVER same_group
     ELSE {column} END AS {column}

-- name: read_one
SELECT {outputs} FROM {view} WHERE {condition}

-- name: values
-- OFFSET 0 keeps each expression from being evaluated more than once.
COPY (SELECT {written}
        FROM (SELECT {values}
                FROM {source}{where} OFFSET 0) AS row_of) TO STDOUT (FORMAT csv)

-- name: create_compared
CREATE TEMPORARY TABLE {table} ({columns})

-- name: fill_compared
COPY {table} FROM STDIN (FORMAT csv, NULL '\N')

-- name: newest_compared
SELECT coalesce(max(headwater_upto), 0) FROM {table}

-- name: drop_compared
DROP TABLE IF EXISTS {table}

-- name: positions_of
SELECT headwater_event.position
  FROM headwater.events AS headwater_event
 WHERE headwater_event.tenant = %(tenant)s AND headwater_event.type = ANY (%(types)s) AND headwater_event.position <= %(upto)s
   AND EXISTS (SELECT FROM {source}{where})
 ORDER BY headwater_event.position

-- name: row_among
SELECT to_jsonb(explained) FROM (SELECT {outputs} FROM {source}{where}{group_by}) AS explained

-- name: fill_recomputed
COPY {table} FROM STDIN (FORMAT csv, NULL '')

-- name: orders_by_bytes
-- In UTF-8 the order of code points is that of bytes.
SELECT getdatabaseencoding() = 'UTF8'
   AND (datcollate IN ('C', 'POSIX') AND datlocprovider::text = 'c' OR datlocprovider::text = 'b')
  FROM pg_database WHERE datname = current_database()

-- name: recomputed
WITH both_sides AS (
    SELECT 'expected' AS side, {expected} FROM {recomputed}{expected_kept}
    UNION ALL
    SELECT 'stored' AS side, {stored} FROM {table}{stored_kept}
), compared AS (
    SELECT side, {compared} FROM both_sides{window}
), differing AS (
    {unmatched}
), shown AS (
    SELECT differing.side, {keys}, (SELECT to_jsonb(shown) FROM (SELECT {shown}) AS shown) AS row
      FROM differing
     WHERE jsonb_build_array({keys}) <> ALL (%(parked_keys)s::jsonb[])
)
SELECT tenant, (array_agg(row) FILTER (WHERE side = 'expected'))[1],
       (array_agg(row) FILTER (WHERE side = 'stored'))[1], count(*) OVER ()
  FROM shown GROUP BY {keys}
 ORDER BY {keys} LIMIT %(limit)s::bigint

-- name: count_recomputed
SELECT count(*) FROM {recomputed}
 WHERE jsonb_build_array({keys}) <> ALL (%(parked_keys)s::jsonb[]){kept}

-- name: near
-- Sums of floats, whose last digits depend on the order: by the sum of the absolute values.
CASE WHEN count({column}) OVER same_group = 2
      AND max({column}) OVER same_group - min({column}) OVER same_group
          <= 1e-9::double precision * max({magnitude}) OVER same_group
     THEN max({column}) OVER same_group
     ELSE {column} END AS {column}
