"""What waits for a connection: bounded, in order, nothing stale, whatever is said and read when."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from engineio.packet import CLOSE, MESSAGE, PING, Packet
from engineio.payload import Payload
from hypothesis import given
from hypothesis import strategies as st

from jobcast.realtime.connection.outbox import CHUNK, Backlog
from tests.support import TIMEOUT


def packet(data: str) -> Packet:
    return Packet(MESSAGE, data=data)


def read(backlog: Backlog) -> list[str]:
    """All that a writer would get without waiting, over as many turns as it takes."""
    texts: list[str] = []
    while not backlog.empty():
        item = asyncio.run(backlog.get())
        while True:
            assert item is not None
            texts.append(str(item.data))
            try:
                item = backlog.get_nowait()
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
def test_it_gives_what_was_offered_in_order_without_what_was_replaced(
    said: list[tuple[str, int | str]], limit: int
) -> None:
    cuts: list[int] = []
    backlog = Backlog(cuts.append, limit)
    waiting: list[tuple[str, str]] = []  # what a plain list would hold: text and key
    for number, (action, value) in enumerate(said):
        text = f"{number:04}"
        match action, value:
            case "event", int():
                backlog.offer(packet(text * value))
                waiting.append((text * value, ""))
            case "value", str():
                backlog.offer(packet(text), value)
                waiting = [(t, key) for t, key in waiting if key != value]
                waiting.append((text, value))
            case "history", int():
                history = [f"{text}{n}" for n in range(value)]
                backlog.offer_history([packet(t) for t in history])
                waiting += [(t, "") for t in history]
            case _, int():
                for _ in range(min(value, backlog.qsize())):
                    item = backlog.get_nowait()
                    backlog._taken = backlog._taken_packets = 0
                    assert item is not None
                    assert item.data == waiting.pop(0)[0]
        if cuts:
            break
        assert backlog.pending == sum(len(t) for t, _ in waiting)
    if cuts:
        assert cuts[0] > limit
        assert backlog.overflowed
        assert (len(cuts), backlog.pending, backlog.qsize()) == (1, 0, 0)
        backlog.offer(packet("more"))
        backlog.offer_history([packet("more")])
        assert (len(cuts), backlog.qsize()) == (1, 0)
    else:
        assert read(backlog) == [t for t, _ in waiting]


@given(st.lists(st.integers(0, 100), max_size=40))
def test_values_alone_never_fill_it(values: list[int]) -> None:
    backlog = Backlog(refused, limit=100)
    for value in values:
        backlog.offer(packet(f"{value:050}"), "job")
    assert backlog.qsize() == min(1, len(values))
    assert read(backlog) == [f"{value:050}" for value in values[-1:]]


def test_a_history_larger_than_the_limit_is_taken_whole_and_live_events_after_it() -> None:
    cuts: list[int] = []
    backlog = Backlog(cuts.append, limit=100)
    backlog.offer_history([packet("x" * 50) for _ in range(20)])
    for _ in range(2):
        backlog.offer(packet("y" * 50))
    assert (cuts, backlog.qsize()) == ([], 22)
    for _ in range(3):
        backlog.offer(packet("y" * 50))
    assert len(cuts) == 1


def test_a_second_history_is_not_added_to_one_that_is_not_read() -> None:
    cuts: list[int] = []
    backlog = Backlog(cuts.append, limit=100)
    backlog.offer_history([packet("x" * 500)])
    backlog.offer_history([packet("x")])
    assert cuts == [500]


async def test_who_joins_waits_until_the_last_history_was_read() -> None:
    backlog = Backlog(refused, limit=100)
    await backlog.drained()
    backlog.offer_history([packet("x" * 60), packet("x" * 60)])
    waiting = asyncio.create_task(backlog.drained())
    await asyncio.sleep(0)
    await backlog.get()
    await asyncio.sleep(0)
    assert not waiting.done()
    await backlog.get()
    await waiting


def test_a_ping_goes_first_and_an_end_goes_last() -> None:
    backlog = Backlog(refused)
    backlog.offer(packet("one"))
    backlog.put_nowait(Packet(PING))
    backlog.put_nowait(Packet(CLOSE))
    backlog.put_nowait(None)
    types = [item and item.packet_type for item in (backlog.get_nowait() for _ in range(4))]
    assert types == [PING, MESSAGE, CLOSE, None]


def test_the_writer_takes_a_bounded_piece_so_that_the_rest_may_still_be_replaced() -> None:
    backlog = Backlog(refused)
    for _ in range(10):
        backlog.offer(packet("x" * (CHUNK // 2)))
    backlog.offer(packet("old"), "job")
    taken = 0
    with pytest.raises(asyncio.QueueEmpty):
        while True:
            backlog.get_nowait()
            taken += 1
    assert taken == 2
    backlog.offer(packet("new"), "job")
    assert read(backlog)[-1] == "new"
    assert backlog.qsize() == 0


async def test_a_long_poll_has_no_more_packets_than_pythons_client_reads() -> None:
    backlog = Backlog(refused)
    for n in range(40):
        backlog.offer(packet(str(n)))
    polls: list[int] = []
    while not backlog.empty():
        await backlog.get()
        polls.append(1)
        with suppress(asyncio.QueueEmpty):
            while True:
                backlog.get_nowait()
                polls[-1] += 1
    assert max(polls) == Payload.max_decode_packets
    assert sum(polls) == 40


async def test_a_queue_that_is_joined_ends_when_all_is_read_or_forgotten() -> None:
    backlog = Backlog(refused)
    backlog.offer(packet("a"), "job")
    backlog.offer(packet("b"), "job")
    backlog.offer(packet("c"))
    backlog.get_nowait()
    backlog.task_done()
    backlog.discard()
    async with asyncio.timeout(TIMEOUT):
        await backlog.join()
