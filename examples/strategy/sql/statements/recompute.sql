-- The ranking anew, from all events that ClickHouse holds, by its own functions. Weeks begin on Monday, in UTC.
SELECT toDateTime64(toStartOfWeek(ts, 1), 6, 'UTC') AS week, sid,
       countIf(what = 'run') AS runs, countIf(what = 'fork') AS forks, max(shown) AS best_basis_points
FROM (SELECT coalesce(occurred_at, recorded_at) AS ts, sid, 'run' AS what, NULL AS shown FROM events.run.started
      UNION ALL
      SELECT coalesce(occurred_at, recorded_at) AS ts, origin AS sid, 'fork' AS what, NULL AS shown FROM events.strategy.forked
      UNION ALL
      SELECT coalesce(occurred_at, recorded_at) AS ts, sid, 'shown' AS what, return_basis_points AS shown FROM events.strategy.published)
WHERE week >= {since:DateTime64(6, 'UTC')} AND week < {before:DateTime64(6, 'UTC')}
GROUP BY week, sid
