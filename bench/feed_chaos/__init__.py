"""Chaos run of feeds: check that lists of jobs agree with the records after faults.

python -m bench.feed_chaos --jobs 1000 --owners 20 --seconds 180 --seed 1

A run has Redis, a broker, four Celery workers with two children each, and two Socket.IO processes
behind proxies. Jobs of several owners report progress, get tags and titles, fail, are retried, and
now and then are sent again under the same id by another owner. Meanwhile the run kills and pauses
Redis, servers, workers and children, and resets connections. The seed determines the choices.

Followers list ``mine``, ``tag:...`` and ``all``, some with a filter: half of them over event
streams, the others with a stock Socket.IO client or with ``JobClient``. When all is quiet, the list
of each follower has to be what the records say, each record has to have the description that was
sent, and each run an ending. No follower may receive another owner's job, a job without the tag, or
another description than sent, at any time.

The exit code is 0 if all of this holds.
"""
