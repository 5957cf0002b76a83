"""Soak test: check that clients receive each event once and in order during faults.

python -m bench.soak --transport redis --seconds 60 --seed 1 --jobs 8 --clients 24

A soak runs the transport's servers, a broker, two Celery workers and two Socket.IO processes on
this machine, with a proxy in front of each Socket.IO process. Stock Socket.IO clients and, for
every third client, readers of event streams follow jobs whose events depend only on the seed. They
reconnect as PROTOCOL.md describes, while ``FaultInjector`` breaks servers, processes and
connections. At the end the soak compares the events that clients
received with the events that the jobs published and with the stored records.

The exit code is 0 if no event was lost, repeated or reordered and every job ended as expected.
"""
