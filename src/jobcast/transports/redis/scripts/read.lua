-- Returns the stored state and events of a job at one moment.
--
-- KEYS: state (hash), events (stream). ARGV: the first id to read from the stream
-- Returns {epoch, seq, state, owner, progress, logged}, the oldest entry, the entries.

return {
    redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'state', 'owner', 'progress', 'logged'),
    redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1),
    redis.call('XRANGE', KEYS[2], ARGV[1], '+'),
}
