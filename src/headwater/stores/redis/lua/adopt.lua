-- Sets position and epoch of data that stays as it is.
-- KEYS: checkpoint. ARGV: fence, revision, position, epoch, last position ('' for none), last id.
local held = redis.call('HMGET', KEYS[1], 'fence', 'revision')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return redis.error_reply('HWLEASE another relay has taken over')
end
redis.call('HSET', KEYS[1], 'position', ARGV[3], 'epoch', ARGV[4])
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[1], 'last_position', ARGV[5], 'last_id', ARGV[6])
end
return ARGV[3]
