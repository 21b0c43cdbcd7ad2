SELECT date_trunc('hour', occurred_at) AS hour, stream, version,
       max(urgency) AS urgency, max(headline) AS headline
FROM (SELECT occurred_at, stream, version, 90 AS urgency,
             name || ' scores! ' || score || ' in minute ' || minute AS headline FROM match.scored
      UNION ALL
      SELECT occurred_at, stream, version, 75 AS urgency,
             'Yellow card for ' || name || ' of ' || team || ', minute ' || minute AS headline FROM match.booked
      UNION ALL
      SELECT occurred_at, stream, version, 85 AS urgency,
             name || ' of ' || team || ' is sent off, minute ' || minute AS headline FROM match.sent_off
      UNION ALL
      SELECT occurred_at, stream, version, 100 AS urgency,
             home || ' ' || goals_home || ':' || goals_away || ' ' || away AS headline FROM match.ended
      UNION ALL
      SELECT occurred_at, stream, version, 40 AS urgency,
             on_name || ' comes on for ' || name || ', minute ' || minute AS headline FROM match.substituted) AS told
GROUP BY 1, 2, 3
