-- Publishes events of one job: assigns each the next seq, stores it, and sends the ready packets to
-- the subscribers, atomically. All keys of a job are in one cluster slot.
--
-- The publisher prepends this line when it loads the script:
--   local node, publish, ttl, active_ttl, max_lines, max_statuses = ...
-- node is the run id of the server: a server that takes over has another script, so calls for the
-- former server fail there. publish is the command, ttl and active_ttl are seconds. max_lines and
-- max_statuses are the numbers of log lines, and of statuses and terminal events, that are retained.
--
-- KEYS: state (hash), lines (stream), channel
--
-- The state has the record, its latest progress, and the statuses and terminal events, each under its
-- seq, so none of them can be evicted without the others. A log line in the stream has the distance to
-- the seq of the line before it (d). If the line before the oldest one has a seq, it was trimmed or
-- evicted. 'trimmed' is the latest seq among the statuses, and the events of former runs, that were
-- removed. 'logged' is the seq of the latest log line. 'cancel' is the request that cancels the current
-- sending, as 'sending request'; 'cancelling' and 'cancelled' are the heads of its events. 'info' is
-- the description of the job as JSON. 'began' is the timestamp of the first event. 'former' is a JSON
-- list of feeds that the job was in and has to leave, because its id has been used again.
--
-- ARGV: 1 publisher
--       2 follows: the number of the publisher's event before these, or 0
--       3 owner or ''
--       4 the event of another publisher that has to be stored first, as 'publisher number seconds',
--         or '' (see base.py)
--       5 the run that publishes, as 'attempt redelivered sending delivery', or ''
--       6 the state that the job has to be in, or ''; with a state there is exactly one event
--       7 and 8 the epoch and seq of the publisher's latest answer for the job
--       9 when the publisher gives up waiting, in seconds by this server's clock
--       10 what the first event adds to the description of the job, as JSON, or ''
--       11 what the first ending or retry adds to what the description lacks, as JSON, or ''
--       then for each event: number, kind, state or '', head
--       A request to cancel the job is one event: 0, 'c', the request as JSON, and the heads of its
--       events, separated by a line break. If the request has an owner, the job must have it, too
-- Returns the latest seq, or the seq and the epoch if the publisher does not know the epoch, or nil
-- if all events were dropped at once, or an event that requires a state. Drops duplicates, and all
-- events except log lines of a run that is past or has ended. runs.py has the rules. If the run is of
-- a sending that is to be cancelled, returns 'cancel' and that answer. For a request, returns the
-- outcome, 1 if the run is terminated in the end or 0, 'cancel' or '', and the name of the task or ''.
-- cancellation.py has the rules.

local state_key, lines_key, channel = KEYS[1], KEYS[2], KEYS[3]
local publisher, follows, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local after, run, requires = ARGV[4], ARGV[5], ARGV[6]
local known_epoch, deadline = ARGV[7], tonumber(ARGV[9])
local FIRST = 12 -- index of the first event in ARGV
local JUMP = 1000000
local REMEMBERED = 32 * 13 -- characters: ids of past runs
local PUBLISHERS = 32 -- whose latest numbers are remembered
local MAX_TAGS = 10
local MAX_FORMER = 33 -- feeds that the job has to leave
local MAX_TRANSIT = 3600 -- seconds that an event may take to reach the store

local time = redis.call('TIME')
local now = tonumber(time[1])
if now + 1 > deadline and now + time[2] / 1000000 >= deadline then
    -- This server was paused. The publisher has sent the events again, perhaps to another server.
    return redis.error_reply('LATE the publisher no longer waits for an answer')
end

local record = redis.call(
    'HMGET', state_key, 'epoch', 'state', 'seq', 'node', 'run', 'past', 'runs', 'numbers', 'owner',
    'logged', 'cancel'
)
local epoch, stored_state, seq = record[1], record[2], tonumber(record[3] or 0)
local state = stored_state
local current, past_ids, runs = record[5], record[6] or '', tonumber(record[7] or 0)
-- Each publisher's latest number, as ' publisher:number publisher:number ', most recent last.
local numbers = record[8] or ' '
local logged = tonumber(record[10] or 0)
local cancel, outcome, terminates, task = record[11], nil, 0, ''
local fields = {}

local function number_of(name)
    local _, colon = string.find(numbers, ' ' .. name .. ':', 1, true)
    return colon and tonumber(string.match(numbers, '^%d+', colon + 1)) or 0
end

-- Returns `numbers` with a new latest number of this publisher.
local function numbers_with(number)
    local others = numbers
    local space = string.find(numbers, ' ' .. publisher .. ':', 1, true)
    if space then
        local next_space = string.find(numbers, ' ', space + 1, true)
        others = string.sub(numbers, 1, space) .. string.sub(numbers, next_space + 1)
    elseif select(2, string.gsub(numbers, ':', '')) == PUBLISHERS then
        others = string.sub(numbers, string.find(numbers, ' ', 2, true), -1)
    end
    return others .. publisher .. ':' .. number .. ' '
end

local stored_number = number_of(publisher)
local seen = stored_number
local first, last = tonumber(ARGV[FIRST]), tonumber(ARGV[#ARGV - 3])
local has_new = last == 0 or last > stored_number

local function keep(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
end

local function timestamp_of(head)
    return string.match(head, '"timestamp":"([^"]+)"') or ''
end

local function new_epoch()
    return string.format('%x%05x', time[1], time[2])
end

-- Makes the current run a past one.
local function retire()
    local its_sending, its_delivery = string.match(current, '%d+ %d (%S+) (%S+)')
    local another = string.match(run, '%d+ %d (%S+)') ~= its_sending and its_sending ~= '-'
    local name = another and its_sending or its_delivery
    if name ~= '-' then
        past_ids = string.sub(past_ids .. name .. ' ', -REMEMBERED)
    end
    current = false
end

-- How the publishing run relates to the current one.
local standing = 'same'
if run ~= '' and run ~= current then
    local function is_past(name)
        return name ~= '-' and string.find(' ' .. past_ids, ' ' .. name .. ' ', 1, true) ~= nil
    end
    local attempt, redelivered, sending, delivery = string.match(run, '(%d+) (%d) (%S+) (%S+)')
    local its_attempt, its_redelivered, its_sending, its_delivery =
        string.match(current or '', '(%d+) (%d) (%S+) (%S+)')
    if not current then
        standing = 'newer'
    elseif is_past(sending) or is_past(delivery) then
        standing = 'past'
    elseif sending ~= its_sending then
        standing = 'newer'
    elseif attempt ~= its_attempt then
        standing = tonumber(attempt) > tonumber(its_attempt) and 'newer' or 'past'
    elseif delivery ~= its_delivery then
        standing = redelivered < its_redelivered and 'past' or 'newer'
    end
end

-- Returns whether the publishing run and the current one are of the same message.
local function is_of_current_sending()
    local sending = string.match(run, '%d+ %d (%S+)')
    return sending and sending ~= '-' and sending == string.match(current or '', '%d+ %d (%S+)')
end

if follows > 0 and seen < follows then
    return redis.error_reply('NOTYET earlier events of this publisher are missing')
end
if after ~= '' and (first == 0 or first > stored_number) then
    local other, number, published_at = string.match(after, '(%S+) (%d+) (%d+)')
    -- Without a record it is unknown whether the event was published: see base.py.
    local may_come = epoch or now - tonumber(published_at) < MAX_TRANSIT
    if may_come and tonumber(number) > number_of(other) then
        return redis.error_reply('HELD waiting for an event of another publisher')
    end
end

-- Returns the feeds that the job has to leave: those of its owner, if given, and of its tags.
local function former_feeds(its_owner)
    local stored = redis.call('HMGET', state_key, 'former', 'info')
    local feeds = stored[1] and cjson.decode(stored[1]) or {}
    feeds[#feeds + 1] = its_owner and 'owner:' .. its_owner
    for _, tag in ipairs(stored[2] and cjson.decode(stored[2]).tags or {}) do
        feeds[#feeds + 1] = 'tag:' .. tag
    end
    while #feeds > MAX_FORMER do
        table.remove(feeds, 1)
    end
    return #feeds > 0 and cjson.encode(feeds) or nil
end

-- Another owner's record: a newer run begins a new record, and all other events are dropped.
local is_foreign = owner ~= '' and record[9] and owner ~= record[9]
local takes_over = is_foreign and standing == 'newer' and has_new
if takes_over then
    if current then
        retire()
    end
    epoch, state, stored_state, cancel = false, false, false, false
end

-- Whether the publishing run is of a sending that is to be cancelled, or of one that continues it:
-- 'first.replacement'.
local covers = cancel
    and not (is_foreign and standing == 'newer')
    and (run == '' or string.match(run, '%d+ %d ([^%s.]+)') == string.match(cancel, '^[^%s.]+'))
local function answer(value)
    if outcome then
        return { outcome, terminates, cancel or '', task }
    end
    return covers and { cancel, value } or value
end

local has_ended = state == 'complete' or state == 'error' or state == 'cancelled'
if ARGV[FIRST + 1] == 'c' then
    local description = redis.call('HMGET', state_key, 'info')[1]
    local info = description and cjson.decode(description) or {}
    local checked = cjson.decode(ARGV[FIRST + 2]).owner -- cjson.null for a job without an owner
    task = info.task or ''
    if not epoch or (checked ~= nil and checked ~= (record[9] or cjson.null)) then
        outcome = 'job_not_found'
    elseif has_ended then
        outcome = 'already_ended'
    elseif info.cancellable == false then
        outcome = 'not_cancellable'
    elseif cancel then
        outcome = 'requested'
    end
    terminates = (outcome or 'requested') == 'requested' and info.terminates and 1 or 0
    if outcome then
        return answer()
    end
    local waits = state == 'pending' or state == 'queued' or state == 'retrying'
    -- A reservation stalls if the process that sends the job is gone.
    local is_reserved = current and string.match(current, '^0 ')
    local asked, ended = string.match(ARGV[FIRST + 3], '^(.*)\n(.*)$')
    cancel = (string.match(current or '', '%d+ %d (%S+)') or '-') .. ' ' .. ARGV[FIRST + 2]
    covers = true
    keep('cancel', cancel)
    keep('cancelling', asked)
    keep('cancelled', ended)
    -- The rest is the same as for any other event.
    if waits or (state == 'stalled' and is_reserved) then
        outcome, terminates = 'cancelled', 0
        ARGV[FIRST + 1], ARGV[FIRST + 2], ARGV[FIRST + 3] = 't', 'cancelled', ended
    else
        outcome = 'requested'
        ARGV[FIRST + 1], ARGV[FIRST + 2], ARGV[FIRST + 3] = 's', 'cancelling', asked
    end
end
-- A run can stall before its 'started' event arrives.
local begun = standing == 'newer' and not has_ended and requires == 'started'
-- A cancelled run can stall, and a stalled one can be cancelled before it is lost.
local is_cancelling = state == 'cancelling'
    and (requires == 'started' or (requires == 'stalled' and ARGV[FIRST + 1] == 't'))
if
    (is_foreign and not takes_over)
    or (requires ~= '' and requires ~= (state or 'pending') and not begun and not is_cancelling)
then
    if record[1] and last > stored_number then
        -- The event is handled, and must not hold up the publisher's next events.
        redis.call('HSET', state_key, 'numbers', numbers_with(last))
    end
    return answer(false)
end

if not epoch then
    -- Existing data is another owner's, or events whose record was evicted.
    local former = takes_over and former_feeds(record[9])
    redis.call('DEL', state_key, lines_key)
    epoch, state = new_epoch(), 'pending'
    seq, runs, logged = 0, 0, 0
    keep('epoch', epoch)
    keep('node', node)
    keep('began', timestamp_of(ARGV[FIRST + 3]))
    if takes_over then
        keep('past', past_ids)
        keep('numbers', numbers)
        keep('former', former)
    end
    if owner ~= '' then
        keep('owner', owner)
    end
else
    local known = known_epoch == epoch and tonumber(ARGV[8]) or 0
    if record[4] ~= node or known > seq then
        -- The record may miss numbers that were assigned by a former server, or by this one before
        -- it was restored. Adding the time keeps them apart from those of another server that took
        -- over.
        seq = math.max(seq + JUMP, known + JUMP, now * 10000 + math.floor(time[2] / 100))
        keep('node', node)
    end
    if owner ~= '' and not record[9] and has_new then
        -- Followers of an unowned job have to be authorized again, which a new epoch causes.
        epoch = new_epoch()
        keep('epoch', epoch)
        keep('owner', owner)
    end
end

local added, missing = ARGV[10], ARGV[11]
local description, is_described = nil, false -- of the record, and whether these events change it
local describe, title_and_tags -- most calls describe nothing, and need no functions for it
if added ~= '' or missing ~= '' then
    -- Adds tags to others, without repeats and up to the limit.
    local function add_tags(tags, added)
        local present = {}
        for _, tag in ipairs(tags) do
            present[tag] = true
        end
        for _, tag in ipairs(added) do
            if not present[tag] and #tags < MAX_TAGS then
                tags[#tags + 1] = tag
            end
        end
    end

    -- Merges a description into that of the record, or only what the record lacks. Returns whether
    -- the description changes.
    function describe(text, completes)
        description = description or redis.call('HMGET', state_key, 'info')[1]
        if not description then
            description, is_described = text, true
            return true
        end
        local info, is_changed = cjson.decode(description), not completes
        local newer = cjson.decode(text)
        if newer.worker and not completes then
            info.terminates = nil -- it belongs to the worker
        end
        for name, value in pairs(newer) do
            if not info[name] then
                info[name], is_changed = value, true
            elseif name == 'tags' and not completes then
                add_tags(info.tags, value)
            elseif name ~= 'created_at' and not completes then
                info[name] = value
            end
        end
        if is_changed then
            description, is_described = cjson.encode(info), true
        end
        return is_changed
    end

    -- Returns the title and the tags of the description as the end of a packet.
    function title_and_tags()
        local info, tail = cjson.decode(description), '}]'
        if info.tags then
            tail = ',"tags":' .. cjson.encode(info.tags) .. tail
        end
        return (info.title and ',"title":' .. cjson.encode(info.title) or '') .. tail
    end
end

-- The number of log lines after the end.
local stored_late = has_ended and tonumber(redis.call('HMGET', state_key, 'late')[1] or 0) or 0
local late = stored_late
local messages, progress, has_new_lines = { epoch }, nil, false
local statuses = {} -- seq, message, seq, message ... of the statuses and terminal events
local history_start, cleared = 0, 0 -- the first seq of the retained runs, and the last line before it
local continue_cancellation
if covers then
    -- Ends a job that is no longer running, or shows again that it is asked to stop.
    function continue_cancellation(begins_again, timestamp)
        local kind, name
        if begins_again or state == 'queued' or state == 'retrying' then
            kind, name = 't', 'cancelled'
        elseif state == 'started' then
            kind, name = 's', 'cancelling'
        else
            return
        end
        local head = redis.call('HMGET', state_key, name)[1] or ''
        head = string.gsub(head, '"timestamp":"[^"]*"', '"timestamp":"' .. timestamp .. '"', 1)
        seq, state, has_ended = seq + 1, name, kind == 't'
        local message = seq .. ' ' .. kind .. ' ' .. head .. seq .. '}]'
        statuses[#statuses + 1] = seq
        statuses[#statuses + 1] = message
        messages[#messages + 1] = message
    end
end
for i = FIRST, #ARGV, 4 do
    local number, kind, new_state, head = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 3)
    local begins = (new_state == 'queued' or new_state == 'started') and requires == ''
    local is_new = number == 0 or number > seen
    local is_covered = covers and not (run == '' and begins)
    local begins_again = is_covered and begins and standing == 'newer'
    local is_late = standing == 'past'
        or begins_again
        or (has_ended and not (begins and (standing == 'newer' or run == '')))
    local completes = kind == 't' or new_state == 'retrying'
    local info = i == FIRST and added or ''
    if completes then
        info, missing = missing, ''
    end
    if is_new and (not is_late or (kind == 'l' and late < max_lines)) then
        local tail = '}]'
        if is_late then
            if has_ended then
                late = late + 1
            end
            local attempt = string.match(run, '^%d+')
            tail = attempt and ',"attempt":' .. math.max(1, tonumber(attempt)) .. '}]' or tail
        elseif standing == 'newer' then
            if current then
                retire()
                keep('past', past_ids)
            end
            keep('run', run)
            current, standing = run, 'same'
        end
        if cancel and not is_late and not is_covered then
            -- The job was sent again.
            cancel, covers = false, false
            redis.call('HDEL', state_key, 'cancel', 'cancelling', 'cancelled')
        end
        seq = seq + 1
        if begins then
            -- Progress of an earlier run does not apply to the new one.
            progress, late = nil, 0
            redis.call('HDEL', state_key, 'progress')
            if has_ended then
                local former = former_feeds()
                if former then
                    keep('former', former)
                end
                keep('began', timestamp_of(head))
                description, is_described = nil, false
                redis.call('HDEL', state_key, 'info')
                redis.call('DEL', lines_key)
                history_start, cleared = seq, logged
            end
        end
        if new_state == 'started' then
            if begins then
                runs = runs + 1
                keep('runs', runs)
            end
            tail = ',"run":' .. runs .. '}]'
        end
        if info ~= '' then
            describe(info, completes)
            tail = kind == 'i' and title_and_tags() or tail
        end
        local packet = head .. seq .. tail
        local message = seq .. ' ' .. kind .. ' ' .. packet
        if kind == 'l' then
            redis.call(
                'XADD', lines_key, 'MAXLEN', '~', max_lines, seq .. '-0', 'd', seq - logged, 'p', packet
            )
            logged, has_new_lines = seq, true
        elseif kind == 'p' then
            progress = message
        elseif kind ~= 'i' then
            statuses[#statuses + 1] = seq
            statuses[#statuses + 1] = message
        end
        if new_state ~= '' then
            state = new_state
            has_ended = kind == 't'
        end
        messages[#messages + 1] = message
    elseif is_new and info ~= '' and not completes and is_of_current_sending() and describe(info, true) then
        -- The record may have begun with its ending. Followers and feeds notice the new epoch: there
        -- is no message.
        epoch = new_epoch()
        keep('epoch', epoch)
        messages[1] = epoch
    end
    if is_new and is_covered and not has_ended then
        continue_cancellation(begins_again, timestamp_of(head))
    end
    if number > seen then
        seen = number
    end
end

if #statuses > 0 then
    local stored = redis.call('HMGET', state_key, 'statuses', 'trimmed')
    local trimmed = math.max(tonumber(stored[2] or 0), cleared)
    local seqs = {} -- of the retained statuses and terminal events
    for old in string.gmatch(stored[1] or '', '%d+') do
        seqs[#seqs + 1] = tonumber(old)
    end
    local old_seqs = #seqs
    for i = 1, #statuses, 2 do
        seqs[#seqs + 1] = statuses[i]
    end
    local oldest = math.max(1, #seqs - max_statuses + 1)
    while seqs[oldest] < history_start do
        oldest = oldest + 1
    end
    for i = 1, oldest - 1 do
        trimmed = math.max(trimmed, seqs[i])
        if i <= old_seqs then
            redis.call('HDEL', state_key, seqs[i])
        end
    end
    for i = math.max(oldest - old_seqs, 1), #statuses / 2 do
        keep(statuses[2 * i - 1], statuses[2 * i])
    end
    keep('statuses', table.concat(seqs, ' ', oldest))
    if trimmed > 0 then
        keep('trimmed', trimmed)
    end
end
if state == 'pending' then
    state = 'started' -- the start event is missing, but the job runs
end
keep('seq', seq)
if state ~= stored_state then
    keep('state', state)
end
if progress then
    keep('progress', progress)
end
if is_described then
    keep('info', description)
end
if late ~= stored_late then
    keep('late', late)
end
if has_new_lines then
    keep('logged', logged)
end
if seen > stored_number then
    keep('numbers', numbers_with(seen))
end
redis.call('HSET', state_key, unpack(fields))
if #messages > 1 then
    -- The message of a cancelled job may reach a worker long after the end.
    local expiry = has_ended and not cancel and ttl or active_ttl
    redis.call('EXPIRE', state_key, expiry)
    if logged > 0 then
        redis.call('EXPIRE', lines_key, expiry)
    end
    redis.call(publish, channel, table.concat(messages, '\n'))
elseif requires ~= '' then
    return answer(false)
end
return answer(known_epoch == epoch and seq or { seq, epoch })
