-- Returns the part of a job's record that its summary depends on.
--
-- KEYS: state (hash). ARGV: the value of 'former' that has been handled and can be removed, or ''
-- Returns {epoch, seq, state, owner, info, began, former, progress, statuses}, and the statuses and
-- terminal events since the latest run began; nil without a record. publish.lua has the formats.

local END = '^%d+ t 42%["job_complete",{"job_id":"[^"]*","timestamp":"[^"]*"'

if ARGV[1] ~= '' and redis.call('HMGET', KEYS[1], 'former')[1] == ARGV[1] then
    redis.call('HDEL', KEYS[1], 'former')
end
local record = redis.call(
    'HMGET', KEYS[1], 'epoch', 'seq', 'state', 'owner', 'info', 'began', 'former', 'progress',
    'statuses'
)
if not record[1] then
    return false
end
local seqs = {}
for seq in string.gmatch(record[9] or '', '%d+') do
    seqs[#seqs + 1] = seq
end
local latest_first, run = {}, nil
for i = #seqs, 1, -1 do
    local message = redis.call('HMGET', KEYS[1], seqs[i])[1] or ''
    local result = string.match(message, END)
    -- A summary has no result, which can be long.
    latest_first[#latest_first + 1] = result and result .. '}]' or message
    local its_run = string.match(message, ',"run":(%d+)}%]$')
    if (run and its_run and its_run ~= run) or string.find(message, '"status":"queued"', 1, true) then
        break
    end
    run = run or its_run
end
return { record, latest_first }
