"""The repeated requests of one call of the synchronous client."""

from __future__ import annotations

import math
import time

from jobcast.client.http import HttpConnection, Unavailable
from jobcast.client.retry import client_backoff, pause_before_retry
from jobcast.errors import ClientError
from jobcast.events import Refusal


class Attempts:
    """The attempts of one call, with a pause after each failed one, and an optional deadline.

    A server that has never answered is an error at once: its URL may be wrong.

    Args:
        connection: the connection of the requests.
        timeout: the number of seconds for all attempts; None for no limit.
    """

    def __init__(self, connection: HttpConnection, timeout: float | None) -> None:
        self._connection = connection
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self._backoff = client_backoff()
        self.problem: ClientError | None = None  # of the latest attempt, if it failed

    @property
    def remaining(self) -> float:
        """The seconds until the deadline, at least 0."""
        return max(0.0, self._deadline - time.monotonic())

    def succeeded(self) -> None:
        """Note that the server has answered: the next pause is short."""
        self._backoff.reset()
        self.problem = None

    def pause(self, failure: Unavailable) -> None:
        """Wait before the next attempt, until the deadline at most.

        Raises:
            ClientError: the problem of the failure, if the server has never answered.
        """
        if not self._connection.has_answered:
            raise failure.problem from failure.__cause__
        self.problem = failure.problem
        refusal = Refusal(
            code=self.problem.code, message=self.problem.message, retry_after=failure.retry_after
        )
        seconds = pause_before_retry(refusal, self._backoff.ceiling)
        self._backoff.failed()
        time.sleep(min(seconds, self.remaining))
