-- What was found of leases has been said.
--
-- KEYS: running, stalled. ARGV: 1 seconds that a job may be stalled, then pairs of kind and lease

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
for i = 2, #ARGV, 2 do
    local kind, member = ARGV[i], ARGV[i + 1]
    if kind == 'stalled' then
        redis.call('ZADD', KEYS[2], now + tonumber(ARGV[1]), member)
        -- One that was renewed meanwhile is found to be revived.
        if tonumber(redis.call('ZSCORE', KEYS[1], member) or 0) <= now then
            redis.call('ZREM', KEYS[1], member)
        end
    else
        redis.call('ZREM', KEYS[2], member)
    end
end
