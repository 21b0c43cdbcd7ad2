-- name: register
INSERT INTO headwater.alerts (alert, tenant) VALUES (%(alert)s, %(tenant)s) ON CONFLICT (alert) DO UPDATE SET tenant = excluded.tenant

-- name: due
SELECT a.alert FROM headwater.alerts AS a
WHERE a.alert = ANY (%(alerts)s::text[]) AND a.looked_at < clock_timestamp() - make_interval(secs => %(every)s) LIMIT 1

-- name: lock
SELECT a.alert, a.since, a.raised_at, a.told, coalesce(a.silenced_until > clock_timestamp(), false), clock_timestamp()
FROM headwater.alerts AS a
WHERE a.alert = ANY (%(alerts)s::text[]) AND a.looked_at < clock_timestamp() - make_interval(secs => %(every)s)
ORDER BY a.alert FOR UPDATE SKIP LOCKED

-- name: looked
UPDATE headwater.alerts AS a SET since = %(since)s, raised_at = %(raised_at)s, told = %(told)s, detail = %(detail)s, looked_at = clock_timestamp()
WHERE a.alert = %(alert)s

-- name: silence
UPDATE headwater.alerts AS a SET silenced_until = clock_timestamp() + make_interval(secs => %(seconds)s) WHERE a.alert = %(alert)s RETURNING a.silenced_until

-- name: list
SELECT a.alert, CASE WHEN a.raised_at IS NOT NULL THEN 'raised' WHEN a.since IS NOT NULL THEN 'waiting' ELSE 'ok' END, a.since, a.raised_at, a.detail,
       CASE WHEN a.silenced_until > clock_timestamp() THEN a.silenced_until END
FROM headwater.alerts AS a ORDER BY a.alert

-- name: outcomes
SELECT s.schedule, s.last_outcome FROM headwater.job_schedules AS s

-- name: week_of_schedules
SELECT s.schedule, e.data->>'outcome', count(*)::int
FROM headwater.job_schedules AS s JOIN headwater.events AS e ON e.tenant = s.tenant AND e.stream = 'schedule/' || s.schedule
WHERE e.recorded_at > clock_timestamp() - make_interval(secs => %(seconds)s)
GROUP BY 1, 2 ORDER BY 1, 2

-- name: week_of_alerts
SELECT a.alert, count(*)::int
FROM headwater.alerts AS a JOIN headwater.events AS e ON e.tenant = a.tenant AND e.stream = 'alert/' || a.alert AND e.type = 'alert.raised'
WHERE e.recorded_at > clock_timestamp() - make_interval(secs => %(seconds)s)
GROUP BY 1 ORDER BY 1

-- name: week_of_queues
WITH now AS (
  SELECT q.queue_id, q.queue, coalesce(sum(n.settled), 0)::bigint AS settled, coalesce(sum(n.failed), 0)::bigint AS failed
  FROM headwater.job_queues AS q LEFT JOIN (
    SELECT t.queue_id, t.settled, t.failed FROM headwater.job_totals AS t
    UNION ALL SELECT s.queue_id, cardinality(s.settled), s.failed FROM headwater.job_steps AS s WHERE NOT s.base) AS n USING (queue_id)
  GROUP BY q.queue_id, q.queue
), before AS MATERIALIZED (SELECT d.* FROM headwater.alert_digests AS d), kept AS (
  INSERT INTO headwater.alert_digests AS d (queue_id, settled, failed) SELECT n.queue_id, n.settled, n.failed FROM now AS n
  ON CONFLICT (queue_id) DO UPDATE SET settled = excluded.settled, failed = excluded.failed
) SELECT n.queue, n.settled - coalesce(b.settled, 0), n.failed - coalesce(b.failed, 0),
         (SELECT count(*)::int FROM headwater.job_dead AS d WHERE d.queue_id = n.queue_id AND d.replayed_as IS NULL)
FROM now AS n LEFT JOIN before AS b USING (queue_id) ORDER BY n.queue
