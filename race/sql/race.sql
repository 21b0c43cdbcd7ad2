-- name: events
CREATE TABLE events (
  position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, stream text NOT NULL, type text NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), data jsonb NOT NULL)

-- name: insert_events
INSERT INTO events (stream, type, data)
SELECT %(stream)s::text, 'order.placed', d::jsonb FROM unnest(%(data)s::text[]) AS d

-- name: counts
CREATE TABLE counts (stream text PRIMARY KEY, placed bigint NOT NULL)

-- name: insert_counts
INSERT INTO counts SELECT e.data ->> 'order', count(*) FROM events AS e GROUP BY 1

-- name: jobs
CREATE TABLE jobs (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_ns bigint NOT NULL)

-- name: insert_jobs
INSERT INTO jobs (at_ns) SELECT %(at_ns)s FROM generate_series(1, %(count)s)

-- name: take_jobs
DELETE FROM jobs WHERE id IN (SELECT j.id FROM jobs AS j ORDER BY j.id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING at_ns

-- name: workflows
CREATE TABLE workflows (id bigint PRIMARY KEY, done boolean NOT NULL);
CREATE TABLE steps (id bigint, step int, PRIMARY KEY (id, step))

-- name: begin_workflow
INSERT INTO workflows VALUES (%(id)s, false)

-- name: insert_step
INSERT INTO steps VALUES (%(id)s, %(step)s)

-- name: end_workflow
UPDATE workflows SET done = true WHERE id = %(id)s
