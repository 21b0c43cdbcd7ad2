-- Each view's checkpoint, and how many positions the log is ahead of it.
SELECT c.view, c.position, greatest(h.last_value - c.position, 0) AS lag
FROM headwater.checkpoints AS c, headwater.position_seq AS h ORDER BY c.view
