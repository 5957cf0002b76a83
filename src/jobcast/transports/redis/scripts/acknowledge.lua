-- Acknowledges findings that have been published.
--
-- KEYS: running, stalled
-- ARGV: 1 seconds until a stalled run is lost, then pairs of a kind and a lease

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for i = 2, #ARGV, 2 do
    local kind, member = ARGV[i], ARGV[i + 1]
    if kind == 'stalled' then
        redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), member)
        -- The next scan reports a run that was renewed meanwhile as revived.
        if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) <= now then
            redis.call('ZREM', KEYS[1], member)
        end
    else
        redis.call('ZREM', KEYS[2], member)
    end
end
