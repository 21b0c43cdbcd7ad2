-- Writes one step: documents and indexes as they are now, and the checkpoint. Redis does not roll a script
-- back, so everything that can be wrong is looked at before the first write, and values are absolute.
-- KEYS: checkpoint, tenants, the set of the indexes' names, then for each tenant its documents and its keys in
-- order, then the structures that this step changes.
-- ARGV: fence ('' for a replay), revision, after, upto, epoch, last position ('' for none), last id,
-- replayed positions ('' unless a replay), how many tenants, how many names of indexes, these, the kind of each
-- structure; then for each tenant its name, how many arguments of documents follow, key and document in turn,
-- how many keys are removed, and these; then for each structure how many arguments are added, these, how many
-- members are removed, and these. A distinct count begins anew where any member is removed.
local held = redis.call('HMGET', KEYS[1], 'fence', 'revision', 'position')
if (ARGV[1] ~= '' and held[1] ~= ARGV[1]) or held[2] ~= ARGV[2] or held[3] ~= ARGV[3] then
  return redis.error_reply('HWLEASE the checkpoint is not where this batch begins')
end
local first = 4 + 2 * ARGV[9]
local kinds = 11 + ARGV[10]
local types = {ranking = 'zset', places = 'zset', counter = 'hash', distinct = 'string'}
for n = 2, #KEYS do
  local kind = redis.call('TYPE', KEYS[n]).ok
  local wanted = n < 4 and 'set' or (n % 2 == 0 and 'hash' or 'zset')
  if n >= first then
    wanted = types[ARGV[kinds + n - first]]
  end
  if kind ~= 'none' and kind ~= wanted then
    return redis.error_reply('HWTYPE ' .. KEYS[n] .. ' is a ' .. kind)
  end
  if kind == 'string' and type(redis.pcall('PFCOUNT', KEYS[n])) == 'table' then
    return redis.error_reply('HWTYPE ' .. KEYS[n] .. ' is no distinct count')
  end
end
local at = kinds + #KEYS - first + 1
for n = 4, first - 1, 2 do
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
if kinds > 11 then
  redis.call('SADD', KEYS[3], unpack(ARGV, 11, kinds - 1))
end
local adds = {ranking = 'ZADD', places = 'GEOADD', counter = 'HSET', distinct = 'PFADD'}
local removes = {ranking = 'ZREM', places = 'ZREM', counter = 'HDEL'}
for n = first, #KEYS do
  local kind, added = ARGV[kinds + n - first], tonumber(ARGV[at])
  local gone = at + added + 1
  local removed = tonumber(ARGV[gone])
  if removed > 0 and kind == 'distinct' then
    redis.call('UNLINK', KEYS[n])
  elseif removed > 0 then
    redis.call(removes[kind], KEYS[n], unpack(ARGV, gone + 1, gone + removed))
  end
  if added > 0 then
    redis.call(adds[kind], KEYS[n], unpack(ARGV, at + 1, at + added))
  end
  at = gone + removed + 1
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
