WITH goal AS (
  INSERT INTO football.goals (id, match, team, player, minute, added, own_goal, penalty)
  VALUES (%(moment)s, %(match)s, %(team)s, %(player)s, %(minute)s, %(added)s, %(own_goal)s, %(penalty)s))
INSERT INTO football.player_match_stats AS stats (match, player, goals)
VALUES (%(match)s, %(player)s, 1 - %(own_goal)s::int)
ON CONFLICT (match, player) DO UPDATE SET goals = stats.goals + excluded.goals
