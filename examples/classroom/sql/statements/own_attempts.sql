SELECT document->>'notebook' AS notebook, (document->>'percent')::int AS percent,
       (document->>'executions')::int AS executions, (document->>'errors')::int AS errors
FROM headwater_views.attempts WHERE document->>'student' = %(student)s ORDER BY 1
