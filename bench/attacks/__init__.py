"""Attacks on a server, byte by byte, for `bench.hostile`, `bench.fuzz` and the tests.

`wire` builds frames and requests, `catalogue` has the attacks, `served` runs the server under
attack and reads its memory and its log, `innocent` is the client that must not notice anything.
"""
