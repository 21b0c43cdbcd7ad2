SELECT extract(epoch FROM moment)::bigint AS moment, sum(executions)::int AS executions, sum(errors)::int AS errors,
       max(p95)::float AS p95
FROM headwater_views.activity
WHERE moment > (SELECT max(moment) - interval '3 minutes' FROM headwater_views.activity)
GROUP BY moment ORDER BY moment
