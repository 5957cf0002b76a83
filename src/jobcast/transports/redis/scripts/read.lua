-- Returns the stored state and events of a job at one moment.
--
-- KEYS: state (hash), lines (stream). ARGV: the seq after which to read events
-- Returns {epoch, seq, state, owner, info, progress, trimmed, logged}, the statuses and terminal events,
-- the oldest log line, the log lines. publish.lua has the formats.

local after = tonumber(ARGV[1])
local record = redis.call(
    'HMGET', KEYS[1], 'epoch', 'seq', 'state', 'owner', 'info', 'progress', 'trimmed', 'logged', 'statuses'
)
local later = {}
for seq in string.gmatch(table.remove(record) or '', '%d+') do
    if tonumber(seq) > after then
        later[#later + 1] = seq
    end
end
return {
    record,
    #later > 0 and redis.call('HMGET', KEYS[1], unpack(later)) or {},
    redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1),
    redis.call('XRANGE', KEYS[2], '(' .. ARGV[1] .. '-0', '+'),
}
