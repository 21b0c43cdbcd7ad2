-- name: request
INSERT INTO headwater.erasures AS e (id, tenant, subject, reason, due_at)
VALUES (%(id)s, %(tenant)s, %(subject)s, %(reason)s, clock_timestamp() + make_interval(days => %(days)s))
ON CONFLICT (tenant, subject) DO UPDATE SET tenant = e.tenant
RETURNING e.id, e.requested_at, e.due_at, e.done_at

-- name: key
SELECT k.key_id FROM headwater.subject_keys AS k WHERE k.tenant = %(tenant)s AND k.subject = %(subject)s

-- name: lock
-- Waits for those who register rows under keys that they have seen alive; see headwater.register_opened.
SELECT pg_advisory_xact_lock(hashtextextended('headwater.forget', 0))

-- name: destroy
-- The key goes; where there was none, none can be made any more.
INSERT INTO headwater.subject_keys AS k (tenant, subject, key_id, wrapped, master, forgotten_at)
VALUES (%(tenant)s, %(subject)s, %(key_id)s, NULL, '', clock_timestamp())
ON CONFLICT (tenant, subject) DO UPDATE
  SET wrapped = NULL, forgotten_at = coalesce(k.forgotten_at, clock_timestamp())
RETURNING k.key_id, k.forgotten_at

-- name: destroy_kept
-- And what is kept of them for a time.
UPDATE headwater.subject_keys AS k SET wrapped = NULL, forgotten_at = coalesce(k.forgotten_at, clock_timestamp())
WHERE k.tenant = %(tenant)s AND starts_with(k.subject, %(subject)s || E'\x1f')
RETURNING k.key_id

-- name: done
UPDATE headwater.erasures SET done_at = coalesce(done_at, clock_timestamp()), certificate = %(certificate)s::jsonb WHERE id = %(id)s

-- name: found
SELECT e.request, e.requested_at, e.due_at, e.done_at, k.key_id,
       k.wrapped IS NULL AND NOT EXISTS (
         SELECT FROM headwater.subject_keys AS s
         WHERE s.tenant = %(tenant)s AND starts_with(s.subject, %(subject)s || E'\x1f') AND s.wrapped IS NOT NULL),
       k.forgotten_at
FROM (SELECT id AS request, requested_at, due_at, done_at FROM headwater.erasures WHERE tenant = %(tenant)s AND subject = %(subject)s) AS e
JOIN headwater.subject_keys AS k ON k.tenant = %(tenant)s AND k.subject = %(subject)s

-- name: events
SELECT count(*), coalesce((array_agg(e.data::text ORDER BY e.position))[:%(most)s], '{}')
FROM headwater.events AS e
WHERE e.tenant = %(tenant)s AND EXISTS (SELECT FROM unnest(%(prefixes)s::text[]) AS p(prefix) WHERE strpos(e.data::text, p.prefix) > 0)

-- name: list
SELECT e.id, e.tenant, e.subject, e.reason, e.requested_at, e.due_at, e.done_at FROM headwater.erasures AS e
ORDER BY e.requested_at DESC LIMIT %(limit)s
