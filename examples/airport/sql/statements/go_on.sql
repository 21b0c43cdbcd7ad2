-- Moves the replay on from where this transaction began; no row, if another replay was there first.
UPDATE airport.replay
   SET changes_done = %(to)s, seconds = seconds + %(seconds)s, token = %(token)s
 WHERE changes_done = %(from)s
