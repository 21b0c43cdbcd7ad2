-- A page of documents in the order of keys, and the checkpoint.
-- KEYS: checkpoint, documents, keys in order. ARGV: lower bound, limit.
local position = redis.call('HGET', KEYS[1], 'position')
local keys = redis.call('ZRANGEBYLEX', KEYS[3], ARGV[1], '+', 'LIMIT', 0, ARGV[2])
if #keys == 0 then
  return {position, {}, {}}
end
return {position, keys, redis.call('HMGET', KEYS[2], unpack(keys))}
