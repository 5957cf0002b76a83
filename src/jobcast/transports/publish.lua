-- Publishes events of one job: gives each the next seq, stores it, and sends the ready packets to
-- whoever is subscribed, all of it or nothing. All keys of a job are in one cluster slot.
--
-- The first line is written when the script is loaded: local node = '<run id of the server>'.
-- So a server that took over has another script, and calls of the former one fail there.
--
-- KEYS: state (hash), events (stream), channel
-- ARGV: 1 the publish command, 2 publisher, 3 follows, 4 owner or '', 5 ttl, 6 active ttl (both in
--       seconds), 7 size (events), 8 and 9 a publisher and its number that these come after; then
--       for each event: number, kind, state or '', run or '', head
-- Returns the seq of the last event. What was here before is dropped, and what comes too late to be
-- true: after the end of its run, announcing a run that has begun, or beginning one that another
-- has followed.

local state_key, events_key, channel = KEYS[1], KEYS[2], KEYS[3]
local publisher, follows, after = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[9])
local JUMP = 1000000

local record = redis.call(
    'HMGET', state_key, 'epoch', 'state', 'seq', 'node', 'from:' .. publisher, 'begun',
    'from:' .. ARGV[8]
)
local epoch, state, seq = record[1], record[2], tonumber(record[3] or 0)
local seen = tonumber(record[5] or 0)
local begun = record[6]

local function is_past(run, begins)
    local attempt, sending = string.match(run, '^(%d+) (.+)$')
    local latest, begun_sending = string.match(begun or '', '^(%d+) (.+)$')
    if not attempt or sending ~= begun_sending then
        return false
    end
    -- After its worker was lost, a job begins the same run once more.
    return tonumber(attempt) < tonumber(latest) + (begins and 0 or 1)
end

if follows > 0 and seen < follows then
    return redis.error_reply('NOTYET the events before these are missing')
end
if after > tonumber(record[7] or 0) then
    return redis.error_reply('HELD another publisher has to speak first')
end

if not epoch then
    -- Events without their record (it was evicted) are of an epoch that nobody can name any more.
    redis.call('DEL', events_key)
    local time = redis.call('TIME')
    epoch, state = string.format('%x%05x', time[1], time[2]), 'pending'
    redis.call('HSET', state_key, 'epoch', epoch, 'node', node)
    if ARGV[4] ~= '' then
        redis.call('HSET', state_key, 'owner', ARGV[4])
    end
elseif record[4] ~= node then
    -- The former server may have given numbers that this one has not heard of.
    seq = seq + JUMP
    redis.call('HSET', state_key, 'node', node)
end

local lines, progress, logged, last = { epoch }, nil, nil, ''
for i = 10, #ARGV, 5 do
    local number, kind, new_state, run, head = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 4)
    local ended = state == 'complete' or state == 'error'
    local begins = new_state == 'queued' or new_state == 'started'
    if
        (number == 0 or number > seen)
        and (begins or not ended)
        and not is_past(run, new_state == 'started')
    then
        if new_state == 'started' then
            begun = run
            redis.call('HSET', state_key, 'begun', run)
        end
        if begins then
            -- What was shown of an earlier run says nothing about this one.
            progress = nil
            redis.call('HDEL', state_key, 'progress')
            if ended then
                redis.call('DEL', events_key)
            end
        end
        seq = seq + 1
        local packet = head .. seq .. '}]'
        if kind == 'p' then
            progress = seq .. ' ' .. packet
        else
            redis.call(
                'XADD', events_key, 'MAXLEN', '~', ARGV[7], seq .. '-0', 'k', kind, 'p', packet
            )
            logged = seq
        end
        if new_state ~= '' then
            state = new_state
        end
        last = kind
        lines[#lines + 1] = seq .. ' ' .. kind .. ' ' .. packet
    end
    if number > seen then
        seen = number
    end
end

if state == 'pending' then
    state = 'started' -- whatever began it is not known any more, but it is running
end
local fields = { 'seq', seq, 'state', state }
local function keep(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end
if progress then
    keep('progress', progress)
end
if logged then
    keep('logged', logged)
end
if seen > 0 then
    keep('from:' .. publisher, seen)
end
redis.call('HSET', state_key, unpack(fields))
if last ~= '' then
    local expiry = last == 't' and ARGV[5] or ARGV[6]
    redis.call('EXPIRE', state_key, expiry)
    redis.call('EXPIRE', events_key, expiry)
    redis.call(ARGV[1], channel, table.concat(lines, '\n'))
end
return seq
