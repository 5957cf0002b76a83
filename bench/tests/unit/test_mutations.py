"""The fuzzer's input depends only on the seed."""

from __future__ import annotations

from random import Random

from bench.mutations import Mutations


def mutations_of(seed: str) -> list[object]:
    mutations = Mutations(Random(seed), "a token", ["a", "b"])
    return [
        mutate() for _ in range(200)
        for mutate in (
            mutations.frames, mutations.payload, lambda: mutations.http("sid"),
            mutations.stream_request,
        )
    ]  # fmt: skip


def test_input_of_a_session_depends_only_on_its_seed() -> None:
    assert mutations_of("7 1") == mutations_of("7 1")
    assert mutations_of("7 1") != mutations_of("7 2")
