"""A subscription to the control channel of cancellations, which reconnects."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from jobcast.aio import Backoff
from jobcast.transports.cancellation import Cancellation, OnCancellation, notify
from jobcast.transports.decoding import decoded

POLL_INTERVAL: Final = 1.0  # seconds until a listener sees that it is closed, at most
FIRST_DELAY: Final = 0.5  # seconds before the first attempt to reconnect
LONGEST_DELAY: Final = 10.0  # seconds between two attempts at most

logger = logging.getLogger(__name__)


class ReconnectingListener(ABC):
    """A subscription in a daemon thread of this process, once it is started.

    Attributes:
        errors: the exceptions of a broken connection.
        meanwhile: how jobs learn of requests until the subscription is back, for a log line.

    Args:
        channel: the name of the control channel.
        on_cancellation: called in the thread with each request.
    """

    errors: ClassVar[tuple[type[Exception], ...]]
    meanwhile: ClassVar[str]

    def __init__(self, channel: str, on_cancellation: OnCancellation) -> None:
        self._channel = channel
        self._on_cancellation = on_cancellation
        self._closed = threading.Event()

    def start(self) -> None:
        """Subscribe, in a thread of its own."""
        threading.Thread(target=self._run, name="jobcast-cancellations", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    @abstractmethod
    def receive(self, on_subscribed: Callable[[], None]) -> None:
        """Subscribe, and pass each message to :meth:`deliver` until the listener is closed.

        Args:
            on_subscribed: to be called when the subscription exists.

        Raises:
            Exception: one of ``errors``: the connection has ended.
        """

    def deliver(self, message: bytes | str) -> None:
        """Pass on the request in a message of the channel."""
        if self.is_closed:
            return
        cancellation = decoded(Cancellation.decode, message, self._channel)
        if cancellation is not None:
            notify(self._on_cancellation, cancellation)

    def _run(self) -> None:
        backoff = Backoff(FIRST_DELAY, LONGEST_DELAY)

        def subscribed() -> None:
            if backoff.failures:
                logger.info("subscribed to requests to cancel jobs again")
            backoff.reset()

        while not self.is_closed:
            try:
                self.receive(subscribed)
            except self.errors as exc:
                if self.is_closed:
                    return  # a connection that is no longer needed
                backoff.failed()
                logger.log(
                    logging.WARNING if backoff.failures == 1 else logging.DEBUG,
                    "lost the subscription to requests to cancel jobs (%s); reconnecting; %s",
                    exc, self.meanwhile,
                )  # fmt: skip
            except Exception:
                backoff.failed()
                logger.exception("could not receive requests to cancel jobs; reconnecting")
            self._closed.wait(backoff.delay())
