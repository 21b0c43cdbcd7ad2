SELECT week, sid, sum(run) AS runs, sum(fork) AS forks, max(shown) AS best_basis_points
FROM (SELECT date_trunc('week', coalesce(occurred_at, recorded_at)) AS week, sid, 1 AS run, 0 AS fork, NULL::bigint AS shown
        FROM run.started
      UNION ALL
      SELECT date_trunc('week', coalesce(occurred_at, recorded_at)) AS week, origin AS sid, 0 AS run, 1 AS fork, NULL::bigint AS shown
        FROM strategy.forked
      UNION ALL
      SELECT date_trunc('week', coalesce(occurred_at, recorded_at)) AS week, sid, 0 AS run, 0 AS fork, return_basis_points AS shown
        FROM strategy.published) AS happened
GROUP BY week, sid
