"""Attacks on a server, byte by byte.

`catalogue` has the attacks, `event_streams` those on the HTTP interface among them. `server` starts
the attacked server and reads its memory, log and gauges, `innocent_client` follows a job meanwhile,
and `history` publishes a long job.
"""
