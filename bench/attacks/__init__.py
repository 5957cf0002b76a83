"""Attacks on a server, byte by byte: what `bench.hostile`, `bench.fuzz` and the tests have in common.

`wire` builds frames and requests, `catalogue` has the attacks, `served` runs the server under
attack and reads its memory and its log, `innocent` is the client that must not notice anything.
"""
