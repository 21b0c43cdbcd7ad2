WITH booking AS (
  INSERT INTO football.bookings (id, match, player, card, foul, minute, added)
  SELECT %(moment)s, %(match)s, %(player)s, 'red', %(foul)s, %(minute)s, %(added)s WHERE %(reason)s = 'red')
INSERT INTO football.player_match_stats AS stats (match, player, sent_off) VALUES (%(match)s, %(player)s, 1)
ON CONFLICT (match, player) DO UPDATE SET sent_off = stats.sent_off + 1
