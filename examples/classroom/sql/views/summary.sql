SELECT notebook, count(*) AS students, count(*) FILTER (WHERE percent = 100) AS finished,
       avg(percent) AS percent, sum(executions) AS executions, sum(errors) AS errors
FROM attempts GROUP BY notebook
