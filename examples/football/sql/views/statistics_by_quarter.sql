SELECT cup, team, player, name, quarter,
       sum(goals) AS goals, sum(penalties) AS penalties, sum(own_goals) AS own_goals,
       sum(yellow_cards) AS yellow_cards, sum(sent_off) AS sent_off
FROM (SELECT cup, team, player, name, minute / 15 AS quarter, (NOT own_goal)::int AS goals, penalty::int AS penalties,
             own_goal::int AS own_goals, 0 AS yellow_cards, 0 AS sent_off FROM match.scored
      UNION ALL
      SELECT cup, team, player, name, minute / 15 AS quarter, 0 AS goals, 0 AS penalties, 0 AS own_goals, 1 AS yellow_cards, 0 AS sent_off
      FROM match.booked
      UNION ALL
      SELECT cup, team, player, name, minute / 15 AS quarter, 0 AS goals, 0 AS penalties, 0 AS own_goals, 0 AS yellow_cards, 1 AS sent_off
      FROM match.sent_off) AS moments
GROUP BY cup, team, player, name, quarter
