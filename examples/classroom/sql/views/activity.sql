SELECT date_bin('10 seconds', occurred_at, '2001-01-01') AS moment, notebook,
       count(*) AS executions, count(error) AS errors,
       avg(milliseconds) AS mean, max(milliseconds) AS slowest, approx_quantile(milliseconds, 0.95) AS p95
FROM cell.executed GROUP BY 1, 2
