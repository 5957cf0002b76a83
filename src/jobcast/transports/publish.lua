-- Publishes one event of a job: gives it the next seq, stores it, and sends the ready packet to
-- whoever is subscribed. All keys of a job are in one cluster slot.
--
-- KEYS: state (hash), events (stream), channel
-- ARGV: head, kind, state or '', owner or '', ttl, active ttl (both in seconds), size (events)
-- Returns the seq, or 0 if the event came after the end of its run and was dropped.

local state_key, events_key, channel = KEYS[1], KEYS[2], KEYS[3]
local head, kind, state, owner = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local ttl, active_ttl, size = ARGV[5], ARGV[6], ARGV[7]

local record = redis.call('HMGET', state_key, 'epoch', 'state')
local epoch, before = record[1], record[2]
local ended = before == 'complete' or before == 'error'
local begins = state == 'queued' or state == 'started'

if ended and not begins then
    return 0
end

if not epoch then
    -- Events without their record (it was evicted) are of an epoch that nobody can name any more.
    redis.call('DEL', events_key)
    local time = redis.call('TIME')
    epoch = string.format('%x%05x', time[1], time[2])
    redis.call('HSET', state_key, 'epoch', epoch, 'state', 'pending')
    if owner ~= '' then
        redis.call('HSET', state_key, 'owner', owner)
    end
elseif begins then
    -- What was shown of an earlier run says nothing about this one.
    redis.call('HDEL', state_key, 'progress')
    if ended then
        redis.call('DEL', events_key)
    end
end

local seq = redis.call('HINCRBY', state_key, 'seq', 1)
local packet = head .. seq .. '}]'

if kind == 'p' then
    redis.call('HSET', state_key, 'progress', seq .. ' ' .. packet)
else
    redis.call('XADD', events_key, 'MAXLEN', '~', size, seq .. '-0', 'k', kind, 'p', packet)
end
if state ~= '' then
    redis.call('HSET', state_key, 'state', state)
end

local expiry = kind == 't' and ttl or active_ttl
redis.call('EXPIRE', state_key, expiry)
redis.call('EXPIRE', events_key, expiry)
redis.call('PUBLISH', channel, epoch .. ' ' .. seq .. ' ' .. kind .. ' ' .. packet)
return seq
