-- Adds, replaces or removes a job in a feed, and publishes the change to the feed's followers.
--
-- KEYS: index (sorted set of jobs by created_at), jobs (hash: job id to 'epoch seq summary'), ended
--       (sorted set of ended jobs by ended_at), channel
-- ARGV: 1 publish: the command
--       2 size: the number of jobs in the feed at most
--       3 seconds that an ended job stays
--       4 seconds until an unchanged feed expires
--       5 job id, 6 epoch, 7 seq
--       8 the position 'epoch seq' that is replaced even if it is higher, or ''
--       9 created_at, or '' to remove the job
--       10 ended_at, or ''
--       11 the summary as JSON
-- Returns the number of followers, or -1 if the feed has the same or a newer position of the job.
--
-- A removed job leaves an entry without a summary for a while, so that no older summary that is under
-- way adds the job again. A message has a line '+ summary' or '- job id epoch seq' for each change.

local index_key, jobs_key, ended_key, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local publish, size, summary_ttl, expiry = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local job_id, epoch, seq, expected = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local created_at, ended_at, summary = ARGV[9], tonumber(ARGV[10]), ARGV[11]
local AT_ONCE = 100 -- jobs that leave the feed in one call
local REMOVED_FOR = 60 -- seconds

local position = epoch .. ' ' .. seq
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- Returns the epoch, the seq and whether there is a summary; nil without an entry.
local function entry_of(id)
    local entry = redis.call('HMGET', jobs_key, id)[1]
    if entry then
        local its_epoch, its_seq, start = string.match(entry, '^(%S+) (%d+) ()')
        return its_epoch, its_seq, start <= #entry
    end
end

local its_epoch, its_seq, was_in = entry_of(job_id)
if its_epoch and its_epoch .. ' ' .. its_seq ~= expected then
    if its_epoch > epoch or (its_epoch == epoch and tonumber(its_seq) >= tonumber(seq)) then
        return -1
    end
end

local changes, is_in, left = {}, created_at ~= '', 0

-- Removes an entry that is too old.
local function drop(id)
    local old_epoch, old_seq, is_job = entry_of(id)
    redis.call('HDEL', jobs_key, id)
    redis.call('ZREM', index_key, id)
    redis.call('ZREM', ended_key, id)
    left = left + 1
    if id == job_id then
        is_in = false
    elseif is_job then
        changes[#changes + 1] = '- ' .. id .. ' ' .. old_epoch .. ' ' .. old_seq
    end
end

-- Returns the member of a sorted set with the lowest score up to a maximum.
local function first(key, maximum)
    return redis.call('ZRANGEBYSCORE', key, '-inf', maximum, 'LIMIT', 0, 1)[1]
end

if is_in then
    redis.call('HSET', jobs_key, job_id, position .. ' ' .. summary)
    redis.call('ZADD', index_key, created_at, job_id)
    if ended_at then
        -- A worker's clock may be ahead.
        redis.call('ZADD', ended_key, string.format('%.6f', math.min(ended_at, now)), job_id)
    elseif its_epoch then
        redis.call('ZREM', ended_key, job_id)
    end
else
    redis.call('HSET', jobs_key, job_id, position .. ' ')
    redis.call('ZREM', index_key, job_id)
    redis.call('ZADD', ended_key, string.format('%.6f', now - summary_ttl + REMOVED_FOR), job_id)
end

local too_old = string.format('%.6f', now - summary_ttl)
local oldest = first(ended_key, too_old)
while oldest and left < AT_ONCE do
    drop(oldest)
    oldest = first(ended_key, too_old)
end
if not was_in then
    while left < AT_ONCE and redis.call('ZCARD', index_key) > size do
        drop(first(ended_key, '+inf') or first(index_key, '+inf'))
    end
end

if is_in then
    changes[#changes + 1] = '+ ' .. summary
elseif was_in then
    changes[#changes + 1] = '- ' .. job_id .. ' ' .. position
end
if not was_in or ended_at or created_at == '' then
    redis.call('EXPIRE', index_key, expiry)
    redis.call('EXPIRE', jobs_key, expiry)
    redis.call('EXPIRE', ended_key, expiry)
end
if #changes == 0 then
    return 0
end
return redis.call(publish, channel, table.concat(changes, '\n'))
