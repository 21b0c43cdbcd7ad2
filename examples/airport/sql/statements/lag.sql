-- Each view's checkpoint, and how far the log is ahead of it. Positions are dense within a month; a
-- new view's checkpoint is 0, below the log's first month.
SELECT c.view, c.position,
       greatest(h.last_value - greatest(c.position, headwater.block_start(headwater.block_of(l.created_at))), 0) AS behind
FROM headwater.checkpoints AS c, headwater.position_seq AS h, headwater.log AS l
WHERE c.view = ANY (%(views)s)
ORDER BY c.view
