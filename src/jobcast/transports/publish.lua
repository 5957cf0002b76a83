-- Publishes events of one job: gives each the next seq, stores it, and sends the ready packets to
-- whoever is subscribed, all of it or nothing. All keys of a job are in one cluster slot.
--
-- The first line is written when the script is loaded: local node = '<run id of the server>'.
-- So a server that took over has another script, and calls of the former one fail there.
--
-- KEYS: state (hash), events (stream), channel
-- ARGV: 1 the publish command, 2 publisher, 3 follows, 4 owner or '', 5 ttl, 6 active ttl (both in
--       seconds), 7 size (events), 8 and 9 a publisher and its number that these come after, 10 the
--       run that says them as 'attempt redelivered sending delivery', or '', 11 the state that the
--       job has to be in, or '' (if there is one, there is one event); then for each event: number,
--       kind, state or '', head
-- Returns the seq of the last event. What was here before is dropped, and what is of no interest any
-- more: of a run that another has followed, or that has ended. See runs.py for the rules.

local state_key, events_key, channel = KEYS[1], KEYS[2], KEYS[3]
local publisher, follows, after = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[9])
local run, requires = ARGV[10], ARGV[11]
local JUMP = 1000000
local REMEMBERED = 32 * 13 -- characters: names of runs that were followed by others
local PUBLISHERS = 32 -- whose latest numbers are remembered

local record = redis.call(
    'HMGET', state_key, 'epoch', 'state', 'seq', 'node', 'run', 'gone', 'runs', 'said'
)
local epoch, state, seq = record[1], record[2], tonumber(record[3] or 0)
local current, gone, runs = record[5], record[6] or '', tonumber(record[7] or 0)
-- Each publisher's latest number, as ' publisher:number publisher:number ', who spoke last is last.
local said = record[8] or ' '
local fields = {}

local function number_of(name)
    local _, colon = string.find(said, ' ' .. name .. ':', 1, true)
    return colon and tonumber(string.match(said, '^%d+', colon + 1)) or 0
end

-- What is said with the publisher's number in it.
local function said_up_to(number)
    local others = said
    local space = string.find(said, ' ' .. publisher .. ':', 1, true)
    if space then
        local next_space = string.find(said, ' ', space + 1, true)
        others = string.sub(said, 1, space) .. string.sub(said, next_space + 1)
    elseif select(2, string.gsub(said, ':', '')) == PUBLISHERS then
        others = string.sub(said, string.find(said, ' ', 2, true), -1)
    end
    return others .. publisher .. ':' .. number .. ' '
end

local heard = number_of(publisher)
local seen = heard

local function keep(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end

local function is_gone(name)
    return name ~= '-' and string.find(' ' .. gone, ' ' .. name .. ' ', 1, true) ~= nil
end

-- How the run that speaks stands to the one that is there.
local function standing()
    if run == '' or run == current then
        return 'same'
    elseif not current then
        return 'newer'
    end
    local attempt, redelivered, sending, delivery = string.match(run, '(%d+) (%d) (%S+) (%S+)')
    local its_attempt, its_redelivered, its_sending, its_delivery =
        string.match(current, '(%d+) (%d) (%S+) (%S+)')
    if is_gone(sending) or is_gone(delivery) then
        return 'past'
    elseif sending ~= its_sending then
        return 'newer'
    elseif attempt ~= its_attempt then
        return tonumber(attempt) > tonumber(its_attempt) and 'newer' or 'past'
    elseif delivery == its_delivery then
        return 'same'
    end
    return redelivered < its_redelivered and 'past' or 'newer'
end

local function adopt()
    if current then
        local its_sending, its_delivery = string.match(current, '%d+ %d (%S+) (%S+)')
        local another = string.match(run, '%d+ %d (%S+)') ~= its_sending and its_sending ~= '-'
        local name = another and its_sending or its_delivery
        if name ~= '-' then
            gone = string.sub(gone .. name .. ' ', -REMEMBERED)
            keep('gone', gone)
        end
    end
    current = run
    keep('run', run)
end

if follows > 0 and seen < follows then
    return redis.error_reply('NOTYET the events before these are missing')
end
-- Where there is no record (any more) nobody knows what was said before. What is here already has
-- not waited, or not in vain.
local first = tonumber(ARGV[12])
local is_new = first == 0 or first > heard
if epoch and is_new and after > number_of(ARGV[8]) then
    return redis.error_reply('HELD another publisher has to speak first')
end

local stands = standing()
local ended = state == 'complete' or state == 'error'
-- A run that was begun, and lost before it could say so, is one that was.
local begun = stands == 'newer' and not ended and requires == 'started'
if requires ~= '' and requires ~= (state or 'pending') and not begun then
    if epoch and first > heard then
        -- It has its answer, and does not hold up what its publisher says next.
        redis.call('HSET', state_key, 'said', said_up_to(first))
    end
    return seq
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
for i = 12, #ARGV, 4 do
    local number, kind, new_state, head = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 3)
    local ended = state == 'complete' or state == 'error'
    local begins = (new_state == 'queued' or new_state == 'started') and requires == ''
    if
        (number == 0 or number > seen)
        and stands ~= 'past'
        and (not ended or (begins and (stands == 'newer' or run == '')))
    then
        if stands == 'newer' then
            adopt()
            stands = 'same'
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
        if new_state == 'started' then
            if begins then
                runs = runs + 1
                keep('runs', runs)
            end
            packet = head .. seq .. ',"run":' .. runs .. '}]'
        end
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
keep('seq', seq)
keep('state', state)
if progress then
    keep('progress', progress)
end
if logged then
    keep('logged', logged)
end
if seen > heard then
    keep('said', said_up_to(seen))
end
redis.call('HSET', state_key, unpack(fields))
if last ~= '' then
    local expiry = last == 't' and ARGV[5] or ARGV[6]
    redis.call('EXPIRE', state_key, expiry)
    redis.call('EXPIRE', events_key, expiry)
    redis.call(ARGV[1], channel, table.concat(lines, '\n'))
end
return seq
