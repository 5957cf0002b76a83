"""The outbox: bounded, ordered and without stale values, for any sequence of writes and reads."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from engineio.packet import CLOSE, MESSAGE, PING, Packet
from engineio.payload import Payload
from hypothesis import given
from hypothesis import strategies as st

from jobcast.realtime.connection.frames import frame
from jobcast.realtime.connection.outbox import CHUNK, Outbox
from tests.support import TIMEOUT


def packet(data: str) -> Packet:
    return Packet(MESSAGE, data=data)


def read(outbox: Outbox) -> list[str]:
    """Return the data of all packets that a writer gets without waiting, in several chunks."""
    texts: list[str] = []
    while not outbox.empty():
        item = asyncio.run(outbox.get())
        while True:
            assert item is not None
            texts.append(str(item.data))
            try:
                item = outbox.get_nowait()
            except asyncio.QueueEmpty:
                break
    return texts


def refused(pending: int) -> None:
    raise AssertionError(f"cut at {pending}")


actions = st.lists(
    st.one_of(
        st.tuples(st.just("event"), st.integers(1, 20)),
        st.tuples(st.just("value"), st.sampled_from("ab")),
        st.tuples(st.just("read"), st.integers(1, 5)),
        st.tuples(st.just("history"), st.integers(0, 6)),
    ),
    max_size=60,
)


@given(actions, st.integers(20, 200))
def test_outbox_returns_offered_packets_in_order_without_replaced_ones(
    steps: list[tuple[str, int | str]], limit: int
) -> None:
    cuts: list[int] = []
    outbox = Outbox(cuts.append, limit)
    waiting: list[tuple[str, str]] = []  # the model: text and key of each queued packet
    for number, (action, value) in enumerate(steps):
        text = f"{number:04}"
        match action, value:
            case "event", int():
                outbox.offer(packet(text * value))
                waiting.append((text * value, ""))
            case "value", str():
                outbox.offer(packet(text), value)
                waiting = [(t, key) for t, key in waiting if key != value]
                waiting.append((text, value))
            case "history", int():
                history = [f"{text}{n}" for n in range(value)]
                outbox.offer_history([packet(t) for t in history])
                waiting += [(t, "") for t in history]
            case _, int():
                for _ in range(min(value, outbox.qsize())):
                    item = outbox.get_nowait()
                    outbox._taken = outbox._taken_packets = 0
                    assert item is not None
                    assert item.data == waiting.pop(0)[0]
        if cuts:
            break
        assert outbox.pending == sum(len(t) for t, _ in waiting)
    if cuts:
        assert cuts[0] > limit
        assert outbox.overflowed
        assert (len(cuts), outbox.pending, outbox.qsize()) == (1, 0, 0)
        outbox.offer(packet("more"))
        outbox.offer_history([packet("more")])
        assert (len(cuts), outbox.qsize()) == (1, 0)
    else:
        assert read(outbox) == [t for t, _ in waiting]


@given(st.lists(st.integers(0, 100), max_size=40))
def test_values_of_one_key_never_overflow_the_outbox(values: list[int]) -> None:
    outbox = Outbox(refused, limit=100)
    for value in values:
        outbox.offer(packet(f"{value:050}"), "job")
    assert outbox.qsize() == min(1, len(values))
    assert read(outbox) == [f"{value:050}" for value in values[-1:]]


def test_history_beyond_the_limit_is_accepted_with_live_events_after_it() -> None:
    cuts: list[int] = []
    outbox = Outbox(cuts.append, limit=100)
    outbox.offer_history([packet("x" * 50) for _ in range(20)])
    for _ in range(2):
        outbox.offer(packet("y" * 50))
    assert (cuts, outbox.qsize()) == ([], 22)
    for _ in range(3):
        outbox.offer(packet("y" * 50))
    assert len(cuts) == 1


def test_second_history_overflows_an_unread_first_history() -> None:
    cuts: list[int] = []
    outbox = Outbox(cuts.append, limit=100)
    outbox.offer_history([packet("x" * 500)])
    outbox.offer_history([packet("x")])
    assert cuts == [500]


def test_an_outbox_without_a_connection_does_not_overflow_silently() -> None:
    outbox = Outbox(limit=100)
    outbox.offer(packet("x" * 101))
    with pytest.raises(RuntimeError, match="set its on_overflow"):
        outbox.offer(packet("x"))


async def test_drained_waits_until_the_previous_history_was_read() -> None:
    outbox = Outbox(refused, limit=100)
    await outbox.drained()
    outbox.offer_history([packet("x" * 60), packet("x" * 60)])
    waiting = asyncio.create_task(outbox.drained())
    await asyncio.sleep(0)
    await outbox.get()
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.get()
    await waiting


def test_ping_is_first_and_close_is_last() -> None:
    outbox = Outbox(refused)
    outbox.offer(packet("one"))
    outbox.put_nowait(Packet(PING))
    outbox.put_nowait(Packet(CLOSE))
    outbox.put_nowait(None)
    types = [item and item.packet_type for item in (outbox.get_nowait() for _ in range(4))]
    assert types == [PING, MESSAGE, CLOSE, None]


def test_writer_takes_bounded_chunks_so_that_the_rest_can_be_replaced() -> None:
    outbox = Outbox(refused)
    for _ in range(10):
        outbox.offer(packet("x" * (CHUNK // 2)))
    outbox.offer(packet("old"), "job")
    taken = 0
    with pytest.raises(asyncio.QueueEmpty):
        while True:
            outbox.get_nowait()
            taken += 1
    assert taken == 2
    outbox.offer(packet("new"), "job")
    assert read(outbox)[-1] == "new"
    assert outbox.qsize() == 0


async def test_long_poll_returns_at_most_the_packets_pythons_client_reads() -> None:
    outbox = Outbox(refused)
    for n in range(40):
        outbox.offer(packet(str(n)))
    polls: list[int] = []
    while not outbox.empty():
        await outbox.get()
        polls.append(1)
        with suppress(asyncio.QueueEmpty):
            while True:
                outbox.get_nowait()
                polls[-1] += 1
    assert max(polls) == Payload.max_decode_packets
    assert sum(polls) == 40


async def test_join_returns_after_all_packets_are_read_or_discarded() -> None:
    outbox = Outbox(refused)
    outbox.offer(packet("a"), "job")
    outbox.offer(packet("b"), "job")
    outbox.offer(packet("c"))
    outbox.get_nowait()
    outbox.task_done()
    outbox.discard()
    async with asyncio.timeout(TIMEOUT):
        await outbox.join()


class RecordingSink:
    """A sink that records each write, and whether it was aborted."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_writable = True
        self.aborted = False

    def write(self, frames: bytes) -> bool:
        if self.is_writable:
            self.writes.append(frames)
        return self.is_writable

    async def send(self, data: str | bytes) -> None:
        self.writes.append(frame(data))

    async def close(self) -> None:
        self.writes.append(b"close")

    def abort(self) -> None:
        self.aborted = True


async def test_corked_packets_are_one_write() -> None:
    outbox, sink = Outbox(refused), RecordingSink()
    outbox.sink = sink
    outbox.cork()
    outbox.put_nowait(packet("first"))
    assert outbox.write(b"second")
    await asyncio.sleep(0)
    outbox.put_nowait(packet("third"))
    assert sink.writes == [frame("4first") + b"second", frame("4third")]


async def test_closing_follows_the_corked_packets() -> None:
    outbox, sink = Outbox(refused), RecordingSink()
    outbox.sink = sink
    outbox.cork()
    outbox.put_nowait(packet("last"))
    outbox.put_nowait(None)
    await outbox.join()
    assert sink.writes == [frame("4last"), b"close"]


async def test_packets_are_queued_while_the_client_does_not_read() -> None:
    outbox, sink = Outbox(refused), RecordingSink()
    outbox.sink, sink.is_writable = sink, False
    outbox.cork()
    outbox.put_nowait(packet("one"))
    await outbox.join()
    assert sink.writes == [frame("4one")]
    assert not sink.aborted


async def test_connection_that_fills_up_before_a_corked_write_is_closed() -> None:
    outbox, sink = Outbox(refused), RecordingSink()
    outbox.sink = sink
    outbox.cork()
    outbox.put_nowait(packet("one"))
    sink.is_writable = False
    await asyncio.sleep(0)
    assert sink.aborted


async def test_corked_packets_of_a_released_socket_are_discarded() -> None:
    outbox, sink = Outbox(refused), RecordingSink()
    outbox.sink = sink
    outbox.cork()
    outbox.put_nowait(packet("one"))
    await outbox.detach()
    await asyncio.sleep(0)
    assert not sink.writes
