-- Takes a view's data over under a fence, and creates its checkpoint where there is none.
-- KEYS: checkpoint. ARGV: fence.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'hash' then
  return redis.error_reply('HWTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
if kind == 'none' then
  redis.call('HSET', KEYS[1], 'position', '0', 'epoch', '0', 'revision', '0', 'fence', ARGV[1])
else
  local fence = redis.call('HGET', KEYS[1], 'fence')
  if tonumber(fence) > tonumber(ARGV[1]) then
    return redis.error_reply('HWLEASE another relay holds fence ' .. fence)
  end
  redis.call('HSET', KEYS[1], 'fence', ARGV[1])
end
return redis.call('HMGET', KEYS[1], 'position', 'epoch', 'revision', 'last_position', 'last_id', 'replayed')
