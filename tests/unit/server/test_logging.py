"""BatchingHandler of log wait for others for a moment, and none is lost, late or out of order."""

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
from jobcast.server.logging import DELAY, BatchingHandler, SkipAcceptedFilter
from tests.support import TIMEOUT, eventually


class Stream(io.StringIO):
    """Remembers each write."""

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
    logger = logging.Logger("test of lines", logging.DEBUG)  # noqa: LOG001  # in no hierarchy
    logger.addHandler(handler)
    yield logger
    handler.close()


async def test_lines_of_a_moment_are_one_write_in_order(
    logger: logging.Logger, stream: Stream
) -> None:
    for n in range(100):
        logger.info("line %d", n)
    assert stream.writes == []
    await eventually(lambda: stream.writes, "lines")
    assert len(stream.writes) == 1
    assert stream.lines == [f"INFO line {n}" for n in range(100)]


async def test_lines_that_go_on_are_written_all_the_time(
    logger: logging.Logger, stream: Stream
) -> None:
    async def talk() -> None:
        said = 0
        while len(stream.writes) < 4:
            logger.info("line %d", said)
            said += 1
            await asyncio.sleep(DELAY / 10)

    # A line that comes later does not put off those that wait: that would be for ever here.
    async with asyncio.timeout(TIMEOUT):
        await talk()
    assert all(text.endswith("\n") for text in stream.writes)
    assert stream.lines == [f"INFO line {n}" for n in range(len(stream.lines))]


async def test_an_error_is_written_at_once_with_all_before_it(
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


async def test_a_traceback_is_written_whole(logger: logging.Logger, stream: Stream) -> None:
    logger.info("before")
    try:
        raise LookupError("no such thing")
    except LookupError:
        logger.exception("it failed")
    assert stream.lines[:3] == [
        "INFO before", "ERROR it failed", "Traceback (most recent call last):",
    ]  # fmt: skip
    assert stream.lines[-1] == "LookupError: no such thing"


def test_outside_of_a_loop_each_line_is_written_at_once(
    logger: logging.Logger, stream: Stream
) -> None:
    for n in range(3):
        logger.info("line %d", n)
        assert len(stream.lines) == n + 1


def test_what_the_end_of_a_loop_left_waiting_does_not_hold_back_what_comes_after(
    logger: logging.Logger, stream: Stream
) -> None:
    async def say() -> None:
        logger.info("inside")

    # The loop ends before the moment has: the last lines of a server are such.
    asyncio.run(say())
    logger.info("outside")
    assert stream.lines == ["INFO inside", "INFO outside"]


def test_lines_of_a_second_loop_are_not_left_waiting_for_the_first(
    logger: logging.Logger, stream: Stream
) -> None:
    async def say(text: str) -> None:
        logger.info(text)

    async def say_and_wait(text: str) -> None:
        logger.info(text)
        await eventually(lambda: "INFO second" in stream.lines, "line of the second loop", 5)

    asyncio.run(say("first"))
    asyncio.run(say_and_wait("second"))
    assert stream.lines == ["INFO first", "INFO second"]


async def test_a_thread_and_the_loop_lose_nothing_between_them(
    logger: logging.Logger, stream: Stream
) -> None:
    count = 500

    def talk() -> None:
        for n in range(count):
            logger.info("thread %d", n)

    thread = threading.Thread(target=talk)
    thread.start()
    for n in range(count):
        logger.info("loop %d", n)
        if n % 50 == 0:
            await asyncio.sleep(0)
    await asyncio.to_thread(thread.join)
    await eventually(lambda: len(stream.lines) == 2 * count, "all lines")
    for who in ("thread", "loop"):
        own = [line for line in stream.lines if line.startswith(f"INFO {who}")]
        assert own == [f"INFO {who} {n}" for n in range(count)]


async def test_a_line_that_cannot_be_formatted_takes_no_other_with_it(
    logger: logging.Logger, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # its report would go to stderr
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


def test_what_waits_is_written_when_the_process_ends() -> None:
    assert run(f"{SETUP}\nasyncio.run(main())").splitlines() == ["one", "two"]


def test_what_waits_is_written_by_logging_shutdown() -> None:
    # os._exit writes nothing more: it was shutdown that did.
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
logging.info("to nobody")
logging.raiseExceptions = True
logging.shutdown()
os._exit(0)
"""


def test_a_reader_that_went_first_is_no_error_of_the_end() -> None:
    # As in `jobcast serve 2>&1 | head`: logging.shutdown forgives an OSError, and nothing else.
    assert run(GONE) == ""


def record(message: object, *args: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.INFO, __file__, 1, message, args, None)


@pytest.mark.parametrize(
    ("said", "is_news"),
    [
        (record('%s - "WebSocket %s" [accepted]', "127.0.0.1:1", "/socket.io/"), False),
        (record('%s - "WebSocket %s" 403', "127.0.0.1:1", "/socket.io/"), True),
        (record("Application startup complete."), True),
        # What is in the arguments is the client's, and hides nothing.
        (record("refused %s", "[accepted]"), True),
        (record(ValueError("no string")), True),
    ],
)
def test_news_are_all_but_accepted_websockets(said: logging.LogRecord, is_news: bool) -> None:
    assert bool(SkipAcceptedFilter().filter(said)) is is_news


def test_warnings_about_malformed_requests_are_limited() -> None:
    news, log = SkipAcceptedFilter(), logging.getLogger("uvicorn.error")
    warning = log.makeRecord(log.name, logging.WARNING, __file__, 1, "Invalid HTTP", (), None)
    shown = sum(bool(news.filter(warning)) for _ in range(10_000))
    assert BURST <= shown < 2 * BURST


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_other_lines_are_not_limited(level: int) -> None:
    news, log = SkipAcceptedFilter(), logging.getLogger("uvicorn.error")
    line = log.makeRecord(log.name, level, __file__, 1, "something", (), None)
    assert all(news.filter(line) for _ in range(1000))
