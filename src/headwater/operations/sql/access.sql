-- name: create
INSERT INTO headwater.access_tokens (id, tenant, scopes, hash, name, expires_at)
VALUES (%(id)s, %(tenant)s, %(scopes)s, %(hash)s, %(name)s, clock_timestamp() + make_interval(secs => %(seconds)s))
RETURNING expires_at

-- name: list
SELECT t.id, t.name, t.tenant, t.scopes, t.created_at, t.expires_at, t.revoked_at, t.last_used_at,
       CASE WHEN t.revoked_at IS NOT NULL THEN 'revoked' WHEN t.expires_at <= clock_timestamp() THEN 'expired' ELSE 'valid' END
FROM headwater.access_tokens AS t
WHERE %(tenant)s::text IS NULL OR t.tenant = %(tenant)s
ORDER BY t.created_at

-- name: rotate
UPDATE headwater.access_tokens AS t
SET expires_at = least(t.expires_at, clock_timestamp() + make_interval(secs => %(overlap_seconds)s))
WHERE t.id = %(id)s AND t.revoked_at IS NULL AND coalesce(t.expires_at > clock_timestamp(), true)
RETURNING t.tenant, t.scopes, t.name

-- name: revoke
UPDATE headwater.access_tokens AS t SET revoked_at = clock_timestamp() WHERE t.id = %(id)s AND t.revoked_at IS NULL RETURNING t.id
