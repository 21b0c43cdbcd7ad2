-- name: next
-- The view that was not compared for longest, and how it was compared last.
SELECT v.view, v.kind, v.generation, s.slices, s.slice, s.compared, s.differing
FROM headwater.views AS v
LEFT JOIN headwater.sampled AS s ON s.view = v.view AND s.generation = v.generation
WHERE v.view = ANY (%(views)s)
ORDER BY s.tried_at NULLS FIRST, v.view
LIMIT 1

-- name: verified
INSERT INTO headwater.sampled AS s (view, generation, slices, slice, compared, differing, detail, verified_at)
SELECT v.view, v.generation, %(slices)s, %(slice)s, %(compared)s, %(differing)s, %(detail)s, clock_timestamp()
FROM headwater.views AS v WHERE v.view = %(view)s AND (%(generation)s::int IS NULL OR v.generation = %(generation)s)
ON CONFLICT (view) DO UPDATE
  SET generation = excluded.generation, slices = excluded.slices, slice = excluded.slice, compared = excluded.compared,
      differing = excluded.differing, detail = excluded.detail, tried_at = clock_timestamp(), verified_at = excluded.verified_at

-- name: gave_up
-- Smaller slices next time, unless a difference is known: that one is tried again.
INSERT INTO headwater.sampled AS s (view, generation, slices, slice, detail)
SELECT v.view, v.generation, %(slices)s, 0, %(detail)s FROM headwater.views AS v WHERE v.view = %(view)s AND v.generation = %(generation)s
ON CONFLICT (view) DO UPDATE
  SET tried_at = clock_timestamp(),
      generation = excluded.generation,
      slices = CASE WHEN s.differing > 0 AND s.generation = excluded.generation THEN s.slices ELSE excluded.slices END,
      slice = CASE WHEN s.differing > 0 AND s.generation = excluded.generation THEN s.slice ELSE 0 END,
      compared = CASE WHEN s.generation = excluded.generation THEN s.compared ELSE 0 END,
      differing = CASE WHEN s.generation = excluded.generation THEN s.differing ELSE 0 END,
      detail = CASE WHEN s.differing > 0 AND s.generation = excluded.generation THEN s.detail ELSE excluded.detail END,
      verified_at = CASE WHEN s.generation = excluded.generation THEN s.verified_at END
