"""BatchingHandler writes records in batches, in order and without loss; tests of the filter."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from jobcast.realtime.connection.refusals import BURST
from jobcast.server.logging import DELAY, BatchingHandler, WarningLimitFilter
from tests.support import TIMEOUT, eventually


class Stream(io.StringIO):
    """A stream that records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def logger(stream: Stream) -> Iterator[logging.Logger]:
    handler = BatchingHandler()
    handler.setStream(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test", logging.DEBUG)  # noqa: LOG001  # outside the hierarchy
    logger.addHandler(handler)
    yield logger
    handler.close()


async def test_records_of_a_short_period_are_written_at_once_in_order(
    logger: logging.Logger, stream: Stream
) -> None:
    for n in range(100):
        logger.info("line %d", n)
    assert stream.writes == []
    await eventually(lambda: stream.writes, "lines")
    assert len(stream.writes) == 1
    assert stream.lines == [f"INFO line {n}" for n in range(100)]


async def test_continuous_records_are_written_continuously(
    logger: logging.Logger, stream: Stream
) -> None:
    async def log_continuously() -> None:
        number = 0
        while len(stream.writes) < 4:
            logger.info("line %d", number)
            number += 1
            await asyncio.sleep(DELAY / 10)

    # If a new record postponed the flush, nothing would ever be written here.
    async with asyncio.timeout(TIMEOUT):
        await log_continuously()
    assert all(text.endswith("\n") for text in stream.writes)
    assert stream.lines == [f"INFO line {n}" for n in range(len(stream.lines))]


async def test_error_is_written_immediately_with_earlier_records(
    logger: logging.Logger, stream: Stream
) -> None:
    logger.info("one")
    logger.warning("two")
    assert stream.writes == []
    logger.error("three")
    assert stream.lines == ["INFO one", "WARNING two", "ERROR three"]
    logger.info("four")
    await eventually(lambda: len(stream.writes) == 2, "line after the error")
    assert stream.lines[3:] == ["INFO four"]


async def test_traceback_is_written_completely(logger: logging.Logger, stream: Stream) -> None:
    logger.info("before")
    try:
        raise LookupError("no such thing")
    except LookupError:
        logger.exception("it failed")
    assert stream.lines[:3] == [
        "INFO before", "ERROR it failed", "Traceback (most recent call last):",
    ]  # fmt: skip
    assert stream.lines[-1] == "LookupError: no such thing"


def test_record_outside_of_event_loop_is_written_immediately(
    logger: logging.Logger, stream: Stream
) -> None:
    for n in range(3):
        logger.info("line %d", n)
        assert len(stream.lines) == n + 1


def test_records_left_by_a_closed_loop_are_written_with_the_next_record(
    logger: logging.Logger, stream: Stream
) -> None:
    async def log_once() -> None:
        logger.info("inside")

    # The loop ends before the scheduled flush, as for the last lines of a server.
    asyncio.run(log_once())
    logger.info("outside")
    assert stream.lines == ["INFO inside", "INFO outside"]


def test_second_loop_schedules_its_own_flush(logger: logging.Logger, stream: Stream) -> None:
    async def log(text: str) -> None:
        logger.info(text)

    async def log_and_wait(text: str) -> None:
        logger.info(text)
        await eventually(lambda: "INFO second" in stream.lines, "line of the second loop", 5)

    asyncio.run(log("first"))
    asyncio.run(log_and_wait("second"))
    assert stream.lines == ["INFO first", "INFO second"]


async def test_no_record_is_lost_between_a_thread_and_the_loop(
    logger: logging.Logger, stream: Stream
) -> None:
    count = 500

    def log_in_thread() -> None:
        for n in range(count):
            logger.info("thread %d", n)

    thread = threading.Thread(target=log_in_thread)
    thread.start()
    for n in range(count):
        logger.info("loop %d", n)
        if n % 50 == 0:
            await asyncio.sleep(0)
    await asyncio.to_thread(thread.join)
    await eventually(lambda: len(stream.lines) == 2 * count, "all lines")
    for origin in ("thread", "loop"):
        own = [line for line in stream.lines if line.startswith(f"INFO {origin}")]
        assert own == [f"INFO {origin} {n}" for n in range(count)]


async def test_record_that_cannot_be_formatted_does_not_affect_others(
    logger: logging.Logger, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # no report to stderr
    logger.info("before")
    logger.info("%d", "no number")
    logger.info("after")
    logger.handlers[0].flush()
    assert stream.lines == ["INFO before", "INFO after"]


def run(program: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    return finished.stderr


SETUP = """
import asyncio, logging
from jobcast.server.logging import BatchingHandler
logging.basicConfig(level=logging.INFO, handlers=[BatchingHandler()], format="%(message)s")
async def main():
    logging.info("one")
    logging.info("two")
"""


def test_waiting_records_are_written_at_process_exit() -> None:
    assert run(f"{SETUP}\nasyncio.run(main())").splitlines() == ["one", "two"]


def test_waiting_records_are_written_by_logging_shutdown() -> None:
    # os._exit flushes nothing, so logging.shutdown must have written the records.
    program = f"{SETUP}\nasyncio.run(main())\nlogging.shutdown()\nimport os\nos._exit(0)"
    assert run(program).splitlines() == ["one", "two"]


GONE = """
import logging, os
from jobcast.server.logging import BatchingHandler
reader, writer = os.pipe()
os.close(reader)
lines = BatchingHandler()
lines.setStream(os.fdopen(writer, "w"))
logging.raiseExceptions = False
logging.basicConfig(level=logging.INFO, handlers=[lines])
logging.info("unread")
logging.raiseExceptions = True
logging.shutdown()
os._exit(0)
"""


def test_closed_stderr_causes_no_error_at_shutdown() -> None:
    # As in `jobcast serve 2>&1 | head`: logging.shutdown ignores only OSError and ValueError.
    assert run(GONE) == ""


def test_warnings_about_malformed_requests_are_rate_limited() -> None:
    limit, log = WarningLimitFilter(), logging.getLogger("uvicorn.error")
    warning = log.makeRecord(log.name, logging.WARNING, __file__, 1, "Invalid HTTP", (), None)
    shown = sum(bool(limit.filter(warning)) for _ in range(10_000))
    assert BURST <= shown < 2 * BURST


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_other_records_are_not_rate_limited(level: int) -> None:
    limit, log = WarningLimitFilter(), logging.getLogger("uvicorn.error")
    line = log.makeRecord(log.name, level, __file__, 1, "something", (), None)
    assert all(limit.filter(line) for _ in range(1000))
