-- Notes a request to cancel a running job, for the renewals of its lease.
--
-- KEYS: cancelling (hash: job id to 'sending request'), since (sorted set of job ids by time)
-- ARGV: 1 job id, 2 'sending request', 3 seconds that a request is kept, 4 number of requests at most

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local AT_ONCE = 100 -- requests that are removed in one call

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.6f', now), ARGV[1])
local too_old = string.format('%.6f', now - ARGV[3])
local removed = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', too_old, 'LIMIT', 0, AT_ONCE)
if #removed == 0 and redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[4]) then
    removed = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf', 'LIMIT', 0, 1)
end
for _, job_id in ipairs(removed) do
    redis.call('HDEL', KEYS[1], job_id)
    redis.call('ZREM', KEYS[2], job_id)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[3])
