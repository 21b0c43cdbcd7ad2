SELECT date_trunc('hour', moment) AS hour, notebook,
       merged(executions) AS executions, merged(errors) AS errors,
       merged(mean) AS mean, merged(slowest) AS slowest, merged(p95) AS p95
FROM activity GROUP BY 1, 2
