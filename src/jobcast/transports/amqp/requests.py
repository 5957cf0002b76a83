"""The requests to cancel jobs that a process on the worker's side knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from kombu.connection import Connection

from jobcast.transports.amqp.cancellation import CancelRequest
from jobcast.transports.amqp.kept import read_kept
from jobcast.transports.amqp.names import Names
from jobcast.transports.cancellation import MAX_KEPT, Cancellation
from jobcast.transports.runs import Run, first_sending


class KnownRequests:
    """The latest requests that are not withdrawn, by job and first sending."""

    def __init__(self) -> None:
        # By the id of the request, too. Requests can race.
        self._requests: OrderedDict[tuple[str, str], dict[str, Cancellation]] = OrderedDict()

    def __iter__(self) -> Iterator[Cancellation]:
        """Yield the first request for each sending, the oldest sending first."""
        return (next(iter(found.values())) for found in self._requests.values())

    def find(self, job_id: str, run: Run) -> Cancellation | None:
        """Return the first request that covers a run."""
        found = self._requests.get((job_id, first_sending(run.sending)))
        return next(iter(found.values())) if found else None

    def add(self, request: CancelRequest) -> None:
        """Add a request, or remove the one that it withdraws."""
        cancellation = request.cancellation
        key = cancellation.job_id, first_sending(cancellation.sending)
        found = self._requests.pop(key, {})
        if request.is_withdrawn:
            found.pop(request.id, None)
        else:
            found[request.id] = cancellation
        if found:
            self._requests[key] = found
        while len(self._requests) > MAX_KEPT:
            self._requests.popitem(last=False)

    def add_kept(self, broker: Connection, names: Names, tries: int) -> None:
        """Add the requests that the broker keeps.

        Raises:
            LockHeld: other processes keep reading, for this number of attempts.
            KombuError, AMQPError, OSError: the connection has ended, or a permission is missing.
        """
        lock = names.read_lock(names.cancellations)
        for request in read_kept(broker, names.kept_requests(), lock, CancelRequest.decode, tries):
            self.add(request)
