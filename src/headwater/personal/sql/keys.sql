-- name: make
INSERT INTO headwater.subject_keys (tenant, subject, key_id, wrapped, master)
SELECT %(tenant)s, n.subject, n.key_id, n.wrapped, n.master
FROM unnest(%(subjects)s::text[], %(ids)s::uuid[], %(masters)s::text[], %(wrapped)s::bytea[]) AS n(subject, key_id, master, wrapped)
ON CONFLICT (tenant, subject) DO NOTHING

-- name: of_subjects
SELECT k.subject, k.key_id, k.wrapped, k.master FROM headwater.subject_keys AS k
WHERE k.tenant = %(tenant)s AND k.subject = ANY (%(subjects)s)

-- name: of_ids
SELECT k.subject, k.key_id, k.wrapped, k.master FROM headwater.subject_keys AS k
WHERE k.tenant = %(tenant)s AND k.key_id = ANY (%(ids)s)

-- name: wrapped_otherwise
SELECT k.tenant, k.subject, k.key_id, k.wrapped, k.master FROM headwater.subject_keys AS k
WHERE k.wrapped IS NOT NULL AND k.master <> %(newest)s AND k.key_id > %(after)s ORDER BY k.key_id LIMIT %(max_rows)s

-- name: rewrap
UPDATE headwater.subject_keys AS k SET wrapped = %(wrapped)s, master = %(master)s
WHERE k.key_id = %(key_id)s AND k.wrapped = %(was)s

-- name: destroy
UPDATE headwater.subject_keys AS k SET wrapped = NULL, forgotten_at = clock_timestamp()
WHERE k.key_id = ANY (%(ids)s) AND k.wrapped IS NOT NULL
