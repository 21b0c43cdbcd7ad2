-- Sketches of SQL views. {braces} are composed by psycopg.sql.

-- name: tally
(SELECT array_agg((counted.bucket << 40) + counted.n ORDER BY counted.bucket)
   FROM (SELECT entry >> 40 AS bucket, sum(entry & 1099511627775)::bigint AS n
           FROM unnest({entries}) AS entry WHERE entry IS NOT NULL GROUP BY 1) AS counted)

-- name: registers
(SELECT array_agg((counted.register << 40) + counted.longest ORDER BY counted.register)
   FROM (SELECT entry >> 40 AS register, max(entry & 1099511627775) AS longest
           FROM unnest({entries}) AS entry WHERE entry IS NOT NULL GROUP BY 1) AS counted)

-- name: bucket
-- Zero is bucket 0; others are beyond 10,000 on either side, in the order of the values.
(CASE sign(({value})::double precision)
      WHEN 0 THEN 1
      WHEN 1 THEN ((50000 + ceil(ln(({value})::double precision) / ln({gamma}::double precision))::bigint) << 40) + 1
      WHEN -1 THEN ((-50000 - ceil(ln(-({value})::double precision) / ln({gamma}::double precision))::bigint) << 40) + 1
 END)

-- name: register
(CASE WHEN {value} IS NOT NULL
      THEN ((hashtextextended(({value})::text, 0) & 4095) << 40)
           + 53 - length(ltrim((hashtextextended(({value})::text, 0) >> 12)::bit(52)::text, '0')) END)

-- name: by_position
((repeat('0', 20) || lpad({position}::text, 20, '0') || ({value})::text) COLLATE "C")

-- name: by_time
-- Microseconds since long before 4713 BC, so that none is negative.
((lpad(trunc(extract(epoch FROM ({order})::timestamptz) * 1000000 + 1000000000000000000)::text, 20, '0')
  || lpad({position}::text, 20, '0') || ({value})::text) COLLATE "C")

-- name: ordered_value
substr({state}, 41)

-- name: quantile
(SELECT CASE WHEN bucket = 0 THEN 0
             ELSE sign(bucket) * 2 * power({gamma}::double precision, abs(bucket) - 50000) / (1 + {gamma}::double precision) END
   FROM (SELECT entry >> 40 AS bucket,
                sum(entry & 1099511627775) OVER (ORDER BY entry) AS upto,
                sum(entry & 1099511627775) OVER () AS n
           FROM unnest({state}) AS entry) AS counted
  WHERE upto > floor({level}::double precision * (n - 1))
  ORDER BY bucket LIMIT 1)

-- name: distinct
(SELECT CASE WHEN raw <= 10240 AND used < 4096 THEN round(4096 * ln(4096.0::double precision / (4096 - used)))
             ELSE round(raw) END
   FROM (SELECT used, (0.7213 / (1 + 1.079 / 4096)) * 4096 * 4096 / (4096 - used + rest) AS raw
           FROM (SELECT count(*) AS used, coalesce(sum(power(2::double precision, -(entry & 1099511627775))), 0) AS rest
                   FROM unnest({state}) AS entry) AS filled) AS estimated)

-- name: first_type
(array_agg({value}))[1]

-- name: last_type
(array_agg({value}))[1]

-- name: quantile_type
max(({value})::double precision)

-- name: about_distinct_type
count({value})
