"""The bounded queue that every kind of connection has."""

from __future__ import annotations

from jobcast.realtime.connection.send_queue import SendMemory, SendQueue


class TextQueue(SendQueue[str]):
    """A queue of texts, which records when it is cut."""

    def __init__(self, limit: int, memory: SendMemory | None = None) -> None:
        super().__init__(limit, memory)
        self.cuts: list[int] = []

    def read(self) -> list[str]:
        texts = []
        while not self.is_empty:
            texts.append(self._pop())
        return texts

    def _overflow(self, pending: int) -> None:
        self.cuts.append(pending)

    def _size(self, packet: str) -> int:
        return len(packet)


def test_burst_may_exceed_the_limit_until_the_queue_is_short_again() -> None:
    queue = TextQueue(10)
    burst = ["x" * 8] * 5
    queue.offer_burst(burst, [None] * 5)
    queue.offer("y")
    assert queue.read() == [*burst, "y"]
    for _ in range(3):
        queue.offer("z" * 8)
    assert queue.cuts == [16]


def test_burst_replaces_stale_values() -> None:
    queue = TextQueue(10)
    queue.offer("1", "job")
    queue.offer_burst(["2", "line", "3"], ["job", None, "job"])
    assert queue.read() == ["line", "3"]


def test_burst_that_exceeds_the_memory_of_all_connections_ends_with_the_cut() -> None:
    memory = SendMemory(20)
    other, queue = TextQueue(100, memory), TextQueue(100, memory)
    other.offer("x")
    queue.offer_burst(["y" * 8] * 5, ["job"] * 4 + [None])
    assert (queue.cuts, other.cuts) == ([], [])  # each value replaced the one before
    queue.offer_burst(["z" * 8] * 5, [None] * 4 + ["job"])
    assert len(queue.cuts) == 1
    assert (queue.is_empty, queue.pending) == (True, 0)
    assert other.read() == ["x"]
