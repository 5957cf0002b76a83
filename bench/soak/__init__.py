"""Everything for real, while everything breaks: does each client see each event once, in order?

python -m bench.soak --transport redis --seconds 60 --seed 1 --jobs 8 --clients 24

The transport's servers, a broker, two Celery workers and two Socket.IO processes run on this
machine, the latter behind proxies. Stock clients follow jobs whose transcripts follow from the
seed, and come back by themselves as PROTOCOL.md says, while the faults of ``faults.py`` happen.
What they were sent is compared with what the jobs have said, and with the record that is left in
the end.

The exit code is 0 if nothing was lost, repeated or reordered and every job ended as it should.
"""
