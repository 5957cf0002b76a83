-- Adds, replaces or removes jobs in a feed, and publishes the changes to the feed's followers.
--
-- KEYS: index (sorted set of jobs by created_at), jobs (hash: job id to 'epoch seq summary'), ended
--       (sorted set of ended jobs by ended_at), channel
-- ARGV: 1 publish: the command
--       2 size: the number of jobs in the feed at most
--       3 seconds that an ended job stays
--       4 seconds until an unchanged feed expires
--       then for each job, which occurs once: job id, epoch, seq,
--         the position 'epoch seq' that is replaced even if it is higher, or ''
--         created_at, or '' to remove the job
--         ended_at, or ''
--         the summary as JSON
-- Returns the number of followers, or -1 if the feed has the same or a newer position of every job.
--
-- A removed job leaves an entry without a summary for a while, so that no older summary that is under
-- way adds the job again. A message has a line '+ summary' or '- job id epoch seq' for each change.

local index_key, jobs_key, ended_key, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local publish, size, summary_ttl, expiry = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local FIRST = 5 -- index of the first job in ARGV
local WIDTH = 7 -- arguments of a job
local REMOVED_FOR = 60 -- seconds

local ids = {}
for i = FIRST, #ARGV, WIDTH do
    ids[#ids + 1] = ARGV[i]
end
local at_once = 100 + #ids -- jobs that leave the feed in one call
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- Returns the epoch, the seq and whether there is a summary; nil without a
-- valid entry.
local function parse(entry)
    if entry then
        local epoch, seq, start = string.match(entry, '^(%S+) (%d+) ()')
        return epoch, seq, start ~= nil and start <= #entry
    end
end

local values, index, ended, running, removed = {}, {}, {}, {}, {} -- arguments of commands
local changes, line_of, removal_of = {}, {}, {} -- line_of and removal_of: by the id of a changed job
local has_new, has_longer = false, false

for i, entry in ipairs(redis.call('HMGET', jobs_key, unpack(ids))) do
    local job_id, at = ids[i], FIRST + (i - 1) * WIDTH
    local epoch, seq, expected = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local created_at, ended_at, summary = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6]
    local its_epoch, its_seq, was_in = parse(entry)
    if
        not its_epoch
        or its_epoch .. ' ' .. its_seq == expected
        or its_epoch < epoch
        or (its_epoch == epoch and tonumber(its_seq) < tonumber(seq))
    then
        local position = epoch .. ' ' .. seq
        removal_of[job_id] = was_in and '- ' .. job_id .. ' ' .. position or ''
        values[#values + 1] = job_id
        values[#values + 1] = position .. ' ' .. summary
        if created_at ~= '' then
            line_of[job_id] = '+ ' .. summary
            index[#index + 1] = created_at
            index[#index + 1] = job_id
            if ended_at then
                -- A worker's clock may be ahead.
                ended[#ended + 1] = string.format('%.6f', math.min(ended_at, now))
                ended[#ended + 1] = job_id
            elseif its_epoch then
                running[#running + 1] = job_id
            end
        else
            line_of[job_id] = removal_of[job_id]
            removed[#removed + 1] = job_id
            ended[#ended + 1] = string.format('%.6f', now - summary_ttl + REMOVED_FOR)
            ended[#ended + 1] = job_id
        end
        has_new = has_new or not was_in
        has_longer = has_longer or not was_in or ended_at or created_at == ''
    end
end
if #values == 0 then
    return -1
end

-- Calls a command, if there is anything to do.
local function call(command, key, arguments)
    if #arguments > 0 then
        redis.call(command, key, unpack(arguments))
    end
end

call('HSET', jobs_key, values)
call('ZADD', index_key, index)
call('ZREM', index_key, removed)
call('ZADD', ended_key, ended)
call('ZREM', ended_key, running)

local left = 0

-- Removes an entry that is too old.
local function drop(id)
    local epoch, seq, is_job = parse(redis.call('HMGET', jobs_key, id)[1])
    redis.call('HDEL', jobs_key, id)
    redis.call('ZREM', index_key, id)
    redis.call('ZREM', ended_key, id)
    left = left + 1
    if line_of[id] then
        line_of[id] = removal_of[id]
    elseif is_job then
        changes[#changes + 1] = '- ' .. id .. ' ' .. epoch .. ' ' .. seq
    end
end

-- Returns the member of a sorted set with the lowest score up to a maximum.
local function first(key, maximum)
    return redis.call('ZRANGEBYSCORE', key, '-inf', maximum, 'LIMIT', 0, 1)[1]
end

local too_old = string.format('%.6f', now - summary_ttl)
local oldest = first(ended_key, too_old)
while oldest and left < at_once do
    drop(oldest)
    oldest = first(ended_key, too_old)
end
if has_new then
    while left < at_once and redis.call('ZCARD', index_key) > size do
        drop(first(ended_key, '+inf') or first(index_key, '+inf'))
    end
end

for _, id in ipairs(ids) do
    if line_of[id] and line_of[id] ~= '' then
        changes[#changes + 1] = line_of[id]
    end
end
if has_longer then
    redis.call('EXPIRE', index_key, expiry)
    redis.call('EXPIRE', jobs_key, expiry)
    redis.call('EXPIRE', ended_key, expiry)
end
if #changes == 0 then
    return 0
end
return redis.call(publish, channel, table.concat(changes, '\n'))
