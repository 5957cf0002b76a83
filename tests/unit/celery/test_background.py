"""Background calls, scheduled from any code that Celery may interrupt."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import pytest

from jobcast.celery.background import BackgroundCalls
from tests.support import TIMEOUT


@pytest.fixture
def background() -> BackgroundCalls:
    return BackgroundCalls()


def test_calls_run_in_order_and_close_waits_for_them(background: BackgroundCalls) -> None:
    made: list[int] = []
    for number in range(100):
        background.call(made.append, number)
    background.close()
    assert made == list(range(100))
    assert background.call(made.append, 100).wait(TIMEOUT)
    background.close()


def test_failed_call_is_logged_and_the_next_one_runs(
    background: BackgroundCalls, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert background.call(lambda: 1 / 0).wait(TIMEOUT)
        assert background.call(lambda: None).wait(TIMEOUT)
    assert "ZeroDivisionError" in caplog.text
    background.close()


def test_signal_handler_may_schedule_a_call_that_needs_a_held_lock(
    background: BackgroundCalls,
) -> None:
    """Celery's cold shutdown is such a handler; it may interrupt code that holds the lock."""
    lock = threading.Lock()
    scheduled: list[threading.Event] = []

    def take_lock() -> None:
        with lock:
            pass

    def handle(number: int, frame: FrameType | None) -> None:
        scheduled.append(background.call(take_lock))

    former = signal.signal(signal.SIGUSR1, handle)
    try:
        with lock:
            signal.raise_signal(signal.SIGUSR1)
            assert not scheduled[0].is_set()
        assert scheduled[0].wait(TIMEOUT)
    finally:
        signal.signal(signal.SIGUSR1, former)
        background.close()
