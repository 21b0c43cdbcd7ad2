-- name: forget
SELECT headwater.forget_answers(%(key_id)s, %(answer)s)

-- name: short_waits
SET LOCAL lock_timeout = '5s'

-- name: rewrite
SELECT headwater.rewrite_answers(%(most)s)

-- name: left
SELECT count(*)::int FROM headwater.answers_of AS o WHERE o.key_id = %(key_id)s
