WITH books (match, player, goals, yellow_cards, sent_off) AS (
  SELECT match, player, goals::bigint, yellow_cards::bigint, sent_off::bigint FROM football.player_match_stats),
log AS (
  SELECT data ->> 'match', data ->> 'player',
         count(*) FILTER (WHERE type = 'match.scored' AND data ->> 'own_goal' = 'false'),
         count(*) FILTER (WHERE type = 'match.booked'), count(*) FILTER (WHERE type = 'match.sent_off')
  FROM headwater.events WHERE type IN ('match.scored', 'match.booked', 'match.sent_off') GROUP BY 1, 2)
(TABLE books EXCEPT TABLE log) UNION ALL (TABLE log EXCEPT TABLE books)
