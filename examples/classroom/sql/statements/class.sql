SELECT (SELECT jsonb_agg(one) FROM (
          SELECT notebook, students, finished, round(percent)::int AS percent, executions, errors
          FROM headwater_views.summary ORDER BY notebook) AS one) AS notebooks,
       (SELECT jsonb_agg(one) FROM (
          SELECT extract(epoch FROM moment)::bigint AS moment, sum(executions)::int AS executions,
                 sum(errors)::int AS errors, max(p95)::int AS p95
          FROM headwater_views.activity
          WHERE moment > (SELECT max(moment) - interval '5 minutes' FROM headwater_views.activity)
          GROUP BY moment ORDER BY moment) AS one) AS recent,
       (SELECT jsonb_object_agg(student, notebooks) FROM (
          SELECT document->>'student' AS student,
                 jsonb_object_agg(document->>'notebook', document->'percent') AS notebooks
          FROM headwater_views.attempts GROUP BY 1) AS one) AS percent
