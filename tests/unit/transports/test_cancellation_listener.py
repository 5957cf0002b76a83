"""The subscription to the control channel of cancellations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event

import pytest

from jobcast.transports.cancellation import Cancellation
from jobcast.transports.cancellation_listener import ReconnectingListener
from tests.support import TIMEOUT


class InterruptedListener(ReconnectingListener):
    """Loses its first connection, and receives one request on the second one."""

    errors = (OSError,)
    meanwhile = "this is a test"

    def __init__(self, on_cancellation: Callable[[Cancellation], None]) -> None:
        super().__init__("requests", on_cancellation)
        self._is_first = True

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        if self._is_first:
            self._is_first = False
            raise OSError("connection reset")
        on_subscribed()
        self.deliver(b"hello")
        self.deliver(Cancellation(job_id="one").encode())
        self.close()


def test_listener_reports_that_it_is_subscribed_again(caplog: pytest.LogCaptureFixture) -> None:
    heard, seen = Event(), list[Cancellation]()

    def hear(cancellation: Cancellation) -> None:
        seen.append(cancellation)
        heard.set()

    caplog.set_level(logging.INFO)
    InterruptedListener(hear).start()
    assert heard.wait(TIMEOUT)
    assert [cancellation.job_id for cancellation in seen] == ["one"]
    assert "(connection reset); reconnecting; this is a test" in caplog.text
    assert "subscribed to requests to cancel jobs again" in caplog.text
    assert "ignored a message on requests that is not jobcast's" in caplog.text


class ClosedListener(ReconnectingListener):
    """Is closed before it loses its connection."""

    errors = (OSError,)
    meanwhile = "this is a test"

    def receive(self, on_subscribed: Callable[[], None]) -> None:
        on_subscribed()
        self.close()
        raise OSError("connection reset")


def test_closed_listener_reports_no_lost_connection(caplog: pytest.LogCaptureFixture) -> None:
    ClosedListener("requests", lambda _: None)._run()
    assert caplog.text == ""
