"""A one-minute run of the fuzzer, and the reproducibility of its data."""

from __future__ import annotations

from random import Random

from bench.attacks.mutations import Mutations
from bench.fuzz import Options, fuzz


def test_random_data_of_every_kind_does_no_harm() -> None:
    report = fuzz(Options(seconds=60, seed=7))
    details = "\n\n".join([report.table(), *report.problems, f"the log is in {report.folder}"])
    assert report.ok, details
    kinds = ("websocket", "polling", "upgrade", "http", "handshake")
    assert all(report.counts[kind] > 10 for kind in kinds), details
    assert report.counts["events of the innocent client"] > 100, details
    assert {200, 400} <= set(report.statuses), details


def generated(seed: str) -> list[object]:
    mutations = Mutations(Random(seed), "a token", ["a", "b"])
    return [
        each() for _ in range(200)
        for each in (mutations.frames, mutations.payload, lambda: mutations.http("sid"))
    ]  # fmt: skip


def test_data_of_a_session_follows_from_its_seed() -> None:
    assert generated("7 1") == generated("7 1")
    assert generated("7 1") != generated("7 2")
