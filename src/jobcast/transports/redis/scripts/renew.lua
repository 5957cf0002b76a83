-- Extends leases so that they expire after the given seconds from now.
--
-- KEYS: running, cancelling (hash: job id to 'sending request'). ARGV: 1 seconds, then leases
-- Returns the requests to cancel the jobs of these leases. The record of a job has the truth.

local time = redis.call('TIME')
local until_ = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1])
local found, has_requests = {}, redis.call('EXISTS', KEYS[2]) == 1
for i = 2, #ARGV do
    redis.call('ZADD', KEYS[1], until_, ARGV[i])
    if has_requests then
        local job_id, sending = string.match(ARGV[i], '^(%S+) %d+ %d ([^%s.]+)')
        local request = redis.call('HMGET', KEYS[2], job_id)[1]
        if request and string.match(request, '^[^%s.]+') == sending then
            found[#found + 1] = request
        end
    end
end
redis.call('EXPIRE', KEYS[1], 86400)
return found
