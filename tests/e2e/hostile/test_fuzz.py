"""The fuzzer, for a minute, and that it repeats itself."""

from __future__ import annotations

from random import Random

from bench.attacks.mutations import Mutations
from bench.fuzz import Options, fuzz


def test_nonsense_of_every_kind_harms_nobody() -> None:
    report = fuzz(Options(seconds=60, seed=7))
    found = "\n\n".join([report.table(), *report.problems, f"the log is in {report.folder}"])
    assert report.ok, found
    kinds = ("websocket", "polling", "upgrade", "http", "handshake")
    assert all(report.counts[kind] > 10 for kind in kinds), found
    assert report.counts["events of the innocent client"] > 100, found
    assert {200, 400} <= set(report.statuses), found


def drawn(seed: str) -> list[object]:
    mutations = Mutations(Random(seed), "a token", ["a", "b"])
    return [
        each() for _ in range(200)
        for each in (mutations.frames, mutations.payload, lambda: mutations.http("sid"))
    ]  # fmt: skip


def test_what_a_session_sends_follows_from_its_seed() -> None:
    assert drawn("7 1") == drawn("7 1")
    assert drawn("7 1") != drawn("7 2")
