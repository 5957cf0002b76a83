-- Returns the findings about expired leases to one process at a time.
--
-- KEYS: running, stalled (sorted sets of leases by the time that they expire), watch (hash)
-- ARGV: 1 id of the process, 2 seconds of a lease, 3 seconds until another may take over, 4 limit
-- Returns pairs of a kind ('stalled', 'revived' or 'lost') and a lease.

local running, stalled, watch = KEYS[1], KEYS[2], KEYS[3]
local lease, take_over, limit = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local watcher = redis.call('HMGET', watch, 'who', 'at', 'since')
local at, since = tonumber(watcher[2] or 0), tonumber(watcher[3] or now)
-- If the clock is set back by a little, findings are late by as much. After a larger step, leases
-- would expire in the far future.
local is_set_back = at - now > lease / 2
if watcher[1] and watcher[1] ~= ARGV[1] and now - at < take_over and not is_set_back then
    return {}
end
if is_set_back then
    for _, key in ipairs({ running, stalled }) do
        local scores = redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'WITHSCORES')
        for i = 1, #scores, 2 do
            redis.call('ZADD', key, tonumber(scores[i + 1]) - (at - now), scores[i])
        end
    end
end
if is_set_back or now - at > lease / 2 then
    -- Workers may have been unable to renew: the store was away, or its clock was set.
    since = now
end
redis.call('HSET', watch, 'who', ARGV[1], 'at', string.format('%.6f', now),
    'since', string.format('%.6f', since))
redis.call('EXPIRE', watch, 3600)
if now - since < lease then
    return {}
end

local found = {}
local function find(kind, member)
    found[#found + 1] = kind
    found[#found + 1] = member
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', running, '-inf', now, 'LIMIT', 0, limit)) do
    find('stalled', member)
end
if redis.call('EXISTS', stalled) == 1 then
    for _, member in ipairs(redis.call('ZINTER', 2, running, stalled)) do
        if tonumber(redis.call('ZSCORE', running, member)) > now then
            find('revived', member)
        end
    end
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', stalled, '-inf', now, 'LIMIT', 0, limit)) do
        if not redis.call('ZSCORE', running, member) then
            find('lost', member)
        end
    end
end
return found
