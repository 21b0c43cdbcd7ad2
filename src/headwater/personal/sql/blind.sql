-- name: forget
SELECT headwater.forget_blind(%(tenant)s, %(prefix)s)

-- name: left
SELECT headwater.blind_left(%(tenant)s, %(prefix)s)
