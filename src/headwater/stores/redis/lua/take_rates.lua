-- Counts requests by the generic cell rate algorithm, by the server's clock. KEYS: keys to count.
-- ARGV: for each, microseconds that a request takes to be made up for, the burst, requests wanted.
-- Returns for each: how many may go on, and for how many microseconds the key runs ahead.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local every, burst, wanted = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local due = math.max(tonumber(redis.call('GET', key) or 0), now)
  local granted = math.max(0, math.min(wanted, math.floor(burst - (due - now) / every + 0.000001)))
  due = due + every * granted
  if granted > 0 then
    redis.call('SET', key, string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1000)
  end
  answer[2 * i - 1] = granted
  answer[2 * i] = math.floor(due - now)
end
return answer
