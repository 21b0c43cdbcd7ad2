WITH booking AS (
  INSERT INTO football.bookings (id, match, player, card, foul, minute, added)
  VALUES (%(moment)s, %(match)s, %(player)s, CASE WHEN %(second)s THEN 'second yellow' ELSE 'yellow' END,
          %(foul)s, %(minute)s, %(added)s))
INSERT INTO football.player_match_stats AS stats (match, player, yellow_cards) VALUES (%(match)s, %(player)s, 1)
ON CONFLICT (match, player) DO UPDATE SET yellow_cards = stats.yellow_cards + 1
