-- The columns that were asked for, over all types of events together; then what each arm of the test did.
WITH told AS (
  SELECT toDateTime(coalesce(occurred_at, recorded_at), 'UTC') AS ts, type AS event, uid, sid, run_id, source, ab FROM events
)
SELECT ab, uniqExact(uid) AS users, countIf(event = 'run.started') AS runs, countIf(event = 'strategy.published') AS published,
       countIf(event = 'strategy.forked') AS forks
FROM told WHERE ts >= now() - INTERVAL 180 DAY
GROUP BY ab ORDER BY ab
