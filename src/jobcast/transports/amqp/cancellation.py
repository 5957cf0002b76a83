"""Requests to cancel jobs over RabbitMQ, on their way to the server processes.

Each server process has its own records, so a request goes to all of them, in the exchange of the
events. The process with the client answers by its own record, after the events that precede the
request.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct, structs

from jobcast.transports.cancellation import Cancellation

MAX_SEEN: Final = 1000  # requests that are recognised when the broker delivers them again


class CancelRequest(Struct, frozen=True):
    """A request on its way to the server processes. The id makes repeated deliveries harmless.

    The first message of a request, the probe, asks the process that sent it for the job's current
    sending. The second one has that sending, and takes effect in every process. In between, the
    workers learn of the request: see :class:`~jobcast.transports.amqp.inbox.RequestInbox`. If it
    has no effect, the process withdraws it.
    """

    cancellation: Cancellation
    id: str
    sender: str = ""  # the id of the publisher of the process with the client
    takes_effect: bool = False
    is_withdrawn: bool = False  # for the workers

    @classmethod
    def of(
        cls, cancellation: Cancellation, sender: str = "", *, takes_effect: bool = False
    ) -> CancelRequest:
        return cls(cancellation, secrets.token_hex(8), sender, takes_effect)

    @property
    def withdrawal(self) -> CancelRequest:
        """The message by which the workers forget the request."""
        return structs.replace(self, is_withdrawn=True)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, body: bytes | str) -> CancelRequest:
        """Parse the body of a message.

        Raises:
            ValueError: the message is not a request.
        """
        try:
            return msgspec.json.decode(body, type=cls)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise ValueError(f"not a request to cancel a job: {exc}") from None


class SeenRequests:
    """The ids of the latest requests."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, request_id: str) -> bool:
        """Add an id. Return whether it is new."""
        if request_id in self._ids:
            return False
        self._ids[request_id] = None
        if len(self._ids) > MAX_SEEN:
            self._ids.popitem(last=False)
        return True


def announced_again(cancellations: Iterable[Cancellation | None]) -> list[Cancellation]:
    """Return the notices for runs that go on although their jobs are cancelled."""
    return [
        structs.replace(cancellation, outcome="requested")
        for cancellation in cancellations
        if cancellation is not None
    ]
