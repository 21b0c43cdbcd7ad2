-- name: register
SELECT headwater.register_queue(%(queue)s, %(lanes)s::text[], %(cap)s, %(every)s, %(burst)s, %(key_limit)s, %(key_every)s, %(key_burst)s)

-- name: take
SELECT w.id, w.lane, w.tenant, w.job, w.arguments, w.key, w.unique_key, w.deadline, w.metadata, w.enqueued_at, w.attempt, w.kept, w.fence
FROM headwater.take_jobs(%(worker)s, %(queue)s, %(lanes)s::text[], %(wanted)s::int[], %(most)s, %(patience)s) AS w

-- name: settle
SELECT headwater.settle_jobs(%(worker)s, %(queue)s, %(finished)s::bigint[], %(kept)s::bigint[], %(special)s::jsonb)

-- name: finish
SELECT headwater.finish_job(%(worker)s, %(queue)s, %(id)s)

-- name: resume
SELECT w.id, w.lane, w.tenant, w.job, w.arguments, w.key, w.unique_key, w.deadline, w.metadata, w.enqueued_at, w.attempt, w.kept, w.fence
FROM headwater.resume_jobs(%(worker)s, %(queue)s) AS w

-- name: enter
SELECT headwater.enter_worker(%(worker)s, %(host)s, %(seconds)s)

-- name: keep
SELECT headwater.keep_worker(%(worker)s, %(seconds)s)

-- name: give_up
SELECT headwater.give_up_workers(%(worker)s)

-- name: tidy
SELECT headwater.tidy_jobs(%(worker)s, %(queue)s)

-- name: rotate
SELECT headwater.rotate_jobs(%(seconds)s)

-- name: cancels
SELECT x.id, x.reason FROM headwater.job_cancels AS x WHERE x.id = ANY (%(ids)s::bigint[])

-- name: progress
SELECT headwater.report_progress(%(tenant)s, %(id)s, %(done)s, %(note)s)
