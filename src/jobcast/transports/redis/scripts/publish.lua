-- Publishes events of one job: assigns each the next seq, stores it, and sends the ready packets to
-- the subscribers, all of it or nothing. All keys of a job are in one cluster slot.
--
-- The first line is written when the script is loaded:
--   local node, publish, ttl, active_ttl, size = ...
-- node is the run id of the server, so that a server which took over has another script, and calls of
-- the former one fail there. publish is the command, ttl and active_ttl are seconds, size is events.
--
-- KEYS: state (hash), events (stream), channel
-- ARGV: 1 publisher, 2 follows, 3 owner or '', 4 the event of another publisher that these come after
--       as 'publisher number seconds', or '' (see base.py), 5 the run that publishes as
--       'attempt redelivered sending delivery', or '', 6 the state that the job has to be in, or ''
--       (if there is one, there is one event), 7 and 8 the epoch and seq of the publisher's latest
--       answer for the job, 9 until when it waits for the answer (seconds, by this server's clock);
--       then for each event: number, kind, state or '', head
-- Returns the latest seq; if the epoch is another than the publisher knows, the seq and the epoch; nil
-- if all of it was dropped at once. Drops duplicates, and everything but log lines of a run that
-- another has followed, or that has ended. See runs.py for the rules.

local state_key, events_key, channel = KEYS[1], KEYS[2], KEYS[3]
local publisher, follows, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local after, run, requires = ARGV[4], ARGV[5], ARGV[6]
local known_epoch, deadline = ARGV[7], tonumber(ARGV[9])
local FIRST = 10 -- where the events begin
local JUMP = 1000000
local REMEMBERED = 32 * 13 -- characters: names of runs that were followed by others
local PUBLISHERS = 32 -- whose latest numbers are remembered
local UNDER_WAY = 3600 -- seconds that an event may take to get here

local time = redis.call('TIME')
local now = tonumber(time[1])
if now + 1 > deadline and now + time[2] / 1000000 >= deadline then
    -- This server was paused. The publisher has sent the events again, perhaps to another server.
    return redis.error_reply('LATE the publisher waits for no answer any more')
end

local record = redis.call(
    'HMGET', state_key, 'epoch', 'state', 'seq', 'node', 'run', 'gone', 'runs', 'said', 'owner'
)
local epoch, stored_state, seq = record[1], record[2], tonumber(record[3] or 0)
local state = stored_state
local current, gone, runs = record[5], record[6] or '', tonumber(record[7] or 0)
-- Each publisher's latest number, as ' publisher:number publisher:number ', the latest one is last.
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
local first, last = tonumber(ARGV[FIRST]), tonumber(ARGV[#ARGV - 3])
local has_new = last == 0 or last > heard

local function keep(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end

local function new_epoch()
    return string.format('%x%05x', time[1], time[2])
end

-- The current run is past from here on.
local function retire()
    local its_sending, its_delivery = string.match(current, '%d+ %d (%S+) (%S+)')
    local another = string.match(run, '%d+ %d (%S+)') ~= its_sending and its_sending ~= '-'
    local name = another and its_sending or its_delivery
    if name ~= '-' then
        gone = string.sub(gone .. name .. ' ', -REMEMBERED)
    end
    current = false
end

-- How the run that publishes stands to the current one.
local stands = 'same'
if run ~= '' and run ~= current then
    local function is_gone(name)
        return name ~= '-' and string.find(' ' .. gone, ' ' .. name .. ' ', 1, true) ~= nil
    end
    local attempt, redelivered, sending, delivery = string.match(run, '(%d+) (%d) (%S+) (%S+)')
    local its_attempt, its_redelivered, its_sending, its_delivery =
        string.match(current or '', '(%d+) (%d) (%S+) (%S+)')
    if not current then
        stands = 'newer'
    elseif is_gone(sending) or is_gone(delivery) then
        stands = 'past'
    elseif sending ~= its_sending then
        stands = 'newer'
    elseif attempt ~= its_attempt then
        stands = tonumber(attempt) > tonumber(its_attempt) and 'newer' or 'past'
    elseif delivery ~= its_delivery then
        stands = redelivered < its_redelivered and 'past' or 'newer'
    end
end

if follows > 0 and seen < follows then
    return redis.error_reply('NOTYET the events before these are missing')
end
if after ~= '' and (first == 0 or first > heard) then
    local other, number, published_at = string.match(after, '(%S+) (%d+) (%d+)')
    -- Without a record it is unknown what was published before: see base.py.
    local may_come = epoch or now - tonumber(published_at) < UNDER_WAY
    if may_come and tonumber(number) > number_of(other) then
        return redis.error_reply('HELD an event of another publisher has to come first')
    end
end

-- The record is another owner's: a newer run begins a new one, and nothing else gets into it.
local is_foreign = owner ~= '' and record[9] and owner ~= record[9]
local takes_over = is_foreign and stands == 'newer' and has_new
if takes_over then
    if current then
        retire()
    end
    epoch, state, stored_state = false, false, false
end

local has_ended = state == 'complete' or state == 'error'
-- A run can be lost before its 'started' is published.
local begun = stands == 'newer' and not has_ended and requires == 'started'
if
    (is_foreign and not takes_over)
    or (requires ~= '' and requires ~= (state or 'pending') and not begun)
then
    if record[1] and last > heard then
        -- It has its answer, and does not hold up what its publisher sends next.
        redis.call('HSET', state_key, 'said', said_up_to(last))
    end
    return false
end

if not epoch then
    -- What is there is another owner's, or events whose record was evicted.
    redis.call('DEL', state_key, events_key)
    epoch, state = new_epoch(), 'pending'
    seq, runs = 0, 0
    keep('epoch', epoch)
    keep('node', node)
    if takes_over then
        keep('gone', gone)
        keep('said', said)
    end
    if owner ~= '' then
        keep('owner', owner)
    end
else
    local known = known_epoch == epoch and tonumber(ARGV[8]) or 0
    if record[4] ~= node or known > seq then
        -- Numbers may have been assigned that this server has no record of: by the server before, or
        -- by this one before it was restored. Time makes the next ones different also from those of
        -- another server that took over.
        seq = math.max(seq + JUMP, known + JUMP, now * 10000 + math.floor(time[2] / 100))
        keep('node', node)
    end
    if owner ~= '' and not record[9] and has_new then
        -- Who follows a record of nobody may not be allowed to follow this owner's: another epoch
        -- has the servers ask.
        epoch = new_epoch()
        keep('epoch', epoch)
        keep('owner', owner)
    end
end

-- Lines after the end.
local late = has_ended and tonumber(redis.call('HMGET', state_key, 'late')[1] or 0) or 0
local lines, progress, logged = { epoch }, nil, nil
for i = FIRST, #ARGV, 4 do
    local number, kind, new_state, head = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 3)
    local begins = (new_state == 'queued' or new_state == 'started') and requires == ''
    local is_late = stands == 'past'
        or (has_ended and not (begins and (stands == 'newer' or run == '')))
    if
        (number == 0 or number > seen)
        and (not is_late or (kind == 'l' and late < size))
    then
        local tail = '}]'
        if is_late then
            if has_ended then
                late = late + 1
                keep('late', late)
            end
            local attempt = string.match(run, '^%d+')
            tail = attempt and ',"attempt":' .. math.max(1, tonumber(attempt)) .. '}]' or tail
        elseif stands == 'newer' then
            if current then
                retire()
                keep('gone', gone)
            end
            keep('run', run)
            current, stands = run, 'same'
        end
        if begins then
            -- What was shown of an earlier run says nothing about this one.
            progress, late = nil, 0
            redis.call('HDEL', state_key, 'progress', 'late')
            if has_ended then
                redis.call('DEL', events_key)
            end
        end
        seq = seq + 1
        if new_state == 'started' then
            if begins then
                runs = runs + 1
                keep('runs', runs)
            end
            tail = ',"run":' .. runs .. '}]'
        end
        local packet = head .. seq .. tail
        if kind == 'p' then
            progress = seq .. ' ' .. packet
        else
            -- Late lines do not push the end out of the history.
            local kept = size + late
            redis.call(
                'XADD', events_key, 'MAXLEN', '~', kept, seq .. '-0', 'k', kind, 'p', packet
            )
            logged = seq
        end
        if new_state ~= '' then
            state = new_state
            has_ended = kind == 't'
        end
        lines[#lines + 1] = seq .. ' ' .. kind .. ' ' .. packet
    end
    if number > seen then
        seen = number
    end
end

if state == 'pending' then
    state = 'started' -- its beginning is unknown, but it is running
end
keep('seq', seq)
if state ~= stored_state then
    keep('state', state)
end
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
if #lines > 1 then
    local expiry = has_ended and ttl or active_ttl
    redis.call('EXPIRE', state_key, expiry)
    redis.call('EXPIRE', events_key, expiry)
    redis.call(publish, channel, table.concat(lines, '\n'))
end
return known_epoch == epoch and seq or { seq, epoch }
