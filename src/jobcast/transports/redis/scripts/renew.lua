-- Extends leases so that they expire after the given seconds from now.
--
-- KEYS: running. ARGV: 1 seconds, then leases

local time = redis.call('TIME')
local until_ = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1])
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
end
redis.call('EXPIRE', KEYS[1], 86400)
