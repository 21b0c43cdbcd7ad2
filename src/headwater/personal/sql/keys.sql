-- name: make
INSERT INTO headwater.subject_keys (tenant, subject, key_id, wrapped, master)
SELECT %(tenant)s, n.subject, n.key_id, n.wrapped, n.master
FROM unnest(%(subjects)s::text[], %(ids)s::uuid[], %(masters)s::text[], %(wrapped)s::bytea[]) AS n(subject, key_id, master, wrapped)
ON CONFLICT (tenant, subject) DO NOTHING

-- name: of_subjects
SELECT k.subject, k.key_id, k.wrapped, k.master FROM headwater.subject_keys AS k
WHERE k.tenant = %(tenant)s AND k.subject = ANY (%(subjects)s)

-- name: of_ids
-- What is kept of somebody for a time is not opened once they are forgotten, whoever has made its key since.
SELECT k.subject, k.key_id,
       CASE WHEN strpos(k.subject, E'\x1f') = 0 OR NOT EXISTS (
         SELECT FROM headwater.subject_keys AS s
         WHERE s.tenant = k.tenant AND s.subject = split_part(k.subject, E'\x1f', 1) AND s.wrapped IS NULL) THEN k.wrapped END, k.master
FROM headwater.subject_keys AS k
WHERE k.tenant = %(tenant)s AND k.key_id = ANY (%(ids)s)

-- name: wrapped_otherwise
SELECT k.tenant, k.subject, k.key_id, k.wrapped, k.master FROM headwater.subject_keys AS k
WHERE k.wrapped IS NOT NULL AND k.master <> %(newest)s AND k.key_id > %(after)s ORDER BY k.key_id LIMIT %(max_rows)s

-- name: rewrap
UPDATE headwater.subject_keys AS k SET wrapped = %(wrapped)s, master = %(master)s
WHERE k.key_id = %(key_id)s AND k.wrapped = %(was)s

-- name: destroy
UPDATE headwater.subject_keys AS k SET wrapped = NULL, forgotten_at = clock_timestamp()
WHERE k.key_id = ANY (%(ids)s) AND k.wrapped IS NOT NULL RETURNING k.tenant, k.subject, k.key_id

-- name: kept_of
SELECT k.key_id FROM headwater.subject_keys AS k
WHERE k.tenant = %(tenant)s AND starts_with(k.subject, %(subject)s || E'\x1f') ORDER BY k.key_id

-- name: due
-- Keys of what is kept until a day that is over.
SELECT k.tenant, k.subject, k.key_id FROM headwater.subject_keys AS k
WHERE k.wrapped IS NOT NULL AND strpos(k.subject, E'\x1f') > 0 AND split_part(k.subject, E'\x1f', 2) <= %(today)s
ORDER BY k.key_id LIMIT %(max_rows)s

-- name: gone_and_opened
SELECT k.tenant, k.subject, k.key_id FROM headwater.subject_keys AS k
WHERE k.wrapped IS NULL AND (EXISTS (SELECT FROM headwater.opened AS o WHERE o.key_id = k.key_id)
                          OR EXISTS (SELECT FROM headwater.answers_of AS a WHERE a.key_id = k.key_id))
ORDER BY k.key_id
