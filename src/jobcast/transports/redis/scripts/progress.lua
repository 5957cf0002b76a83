-- Publishes the progress of running jobs to the followers of a feed, and does not store it: a
-- reader of the feed compares it with the records of its jobs.
--
-- KEYS: jobs (hash: job id to 'epoch seq summary'), channel
-- ARGV: 1 publish: the command
--       then for each job: job id, epoch, seq, the summary as JSON
-- Returns the jobs that the feed does not have. Leaves out a job that was removed, and one of which
-- the feed has another record, or the same or a newer position.

local FIRST, WIDTH = 2, 4

local ids, changes, missing = {}, {}, {}
for i = FIRST, #ARGV, WIDTH do
    ids[#ids + 1] = ARGV[i]
end
for i, entry in ipairs(redis.call('HMGET', KEYS[1], unpack(ids))) do
    local at = FIRST + (i - 1) * WIDTH
    if not entry then
        missing[#missing + 1] = ids[i]
    else
        local epoch, seq, start = string.match(entry, '^(%S+) (%d+) ()')
        if epoch == ARGV[at + 1] and tonumber(seq) < tonumber(ARGV[at + 2]) and start <= #entry then
            changes[#changes + 1] = '+ ' .. ARGV[at + 3]
        end
    end
end
if #changes > 0 then
    redis.call(ARGV[1], KEYS[2], table.concat(changes, '\n'))
end
return missing
