-- A view's baseline (VIEW~base): a generation that nobody drives.

-- name: kept
SELECT v.fingerprint, c.position, v.deployed_at
FROM headwater.views AS v JOIN headwater.checkpoints AS c USING (view) WHERE v.view = %(view)s

-- name: snapshot
BEGIN ISOLATION LEVEL REPEATABLE READ

-- name: end
COMMIT

-- name: columns
SELECT a.attname FROM pg_attribute AS a
WHERE a.attrelid = format('headwater_views.%%I', %(table)s::text)::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY a.attnum

-- name: copy
INSERT INTO {target} ({columns}) SELECT {columns} FROM {source}

-- name: copy_parked
INSERT INTO headwater.parked (view, position, tenant, keys, reason, culprit, status, parked_at)
SELECT %(to)s, p.position, p.tenant, p.keys, p.reason, p.culprit, p.status, p.parked_at FROM headwater.parked AS p WHERE p.view = %(from)s

-- name: copy_checkpoint
UPDATE headwater.checkpoints AS c SET position = t.position, updated_at = clock_timestamp()
FROM headwater.checkpoints AS t WHERE c.view = %(to)s AND t.view = %(from)s AND c.position = 0
RETURNING c.position
