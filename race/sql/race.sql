-- name: facts
CREATE TABLE facts (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL, type text NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), data jsonb NOT NULL)

-- name: insert_facts
INSERT INTO facts (stream, type, data)
SELECT %(stream)s::text, 'order.placed', d::jsonb FROM unnest(%(data)s::text[]) AS d
