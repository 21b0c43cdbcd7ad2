-- Raises the revision of a view's data, where there is any, and returns its checkpoint.
-- KEYS: checkpoint.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return redis.error_reply('HWLEASE nothing is stored yet')
end
redis.call('HINCRBY', KEYS[1], 'revision', 1)
return redis.call('HMGET', KEYS[1], 'position', 'epoch', 'revision', 'last_position', 'last_id', 'replayed')
