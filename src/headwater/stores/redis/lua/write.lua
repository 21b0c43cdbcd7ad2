-- Writes one step: documents as they are now, and the checkpoint. Redis does not roll a script back, so
-- everything that can be wrong is looked at before the first write, and values are absolute.
-- KEYS: checkpoint, tenants, then for each tenant its documents and its keys in order.
-- ARGV: fence ('' for a replay), revision, after, upto, epoch, last position ('' for none), last id,
-- replayed positions ('' unless a replay), then for each tenant: its name, how many arguments of
-- documents follow, key and document in turn, how many keys are removed, and these.
local held = redis.call('HMGET', KEYS[1], 'fence', 'revision', 'position')
if (ARGV[1] ~= '' and held[1] ~= ARGV[1]) or held[2] ~= ARGV[2] or held[3] ~= ARGV[3] then
  return redis.error_reply('HWLEASE the checkpoint is not where this batch begins')
end
for n = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[n]).ok
  local wanted = n == 2 and 'set' or (n % 2 == 1 and 'hash' or 'zset')
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('HWTYPE ' .. KEYS[n] .. ' is a ' .. kind)
  end
end
local at = 9
for n = 3, #KEYS, 2 do
  local tenant, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  if count > 0 then
    if redis.call('HSET', KEYS[n], unpack(ARGV, at, at + count - 1)) > 0 then
      redis.call('SADD', KEYS[2], tenant)
      local entries = {}
      for key = at, at + count - 1, 2 do
        entries[#entries + 1] = '0'
        entries[#entries + 1] = ARGV[key]
      end
      redis.call('ZADD', KEYS[n + 1], unpack(entries))
    end
    at = at + count
  end
  count = tonumber(ARGV[at])
  at = at + 1
  if count > 0 then
    redis.call('HDEL', KEYS[n], unpack(ARGV, at, at + count - 1))
    redis.call('ZREM', KEYS[n + 1], unpack(ARGV, at, at + count - 1))
    at = at + count
  end
end
redis.call('HSET', KEYS[1], 'position', ARGV[4], 'epoch', ARGV[5])
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[1], 'last_position', ARGV[6], 'last_id', ARGV[7])
end
if ARGV[1] == '' then
  redis.call('HSET', KEYS[1], 'replayed', ARGV[8])
  redis.call('HINCRBY', KEYS[1], 'revision', 1)
end
return ARGV[4]
