"""Tell whether a run has stored its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from celery import states
from celery.worker.request import Request

from jobcast.celery.result_backend import can_access_results, read_meta

logger = logging.getLogger(__name__)


#: The states that a run of a task may store as its last one.
ENDINGS: Final = frozenset({states.SUCCESS, states.FAILURE, states.REVOKED})


class OutcomeReadingRequest(Request):
    """A request that knows whether its run has stored its outcome."""

    _outcome: Mapping[str, Any] | None = None  # the meta data of the result

    def stored_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of the result if the run has stored its success.

        A child stores the result before it publishes the end of the job, and may be lost or
        terminated in between. Celery then keeps the result, so the job has to succeed, too.
        """
        if self._outcome is None and self.time_start:
            meta = self._read_success()
            self._outcome = meta if meta and self._is_own_result(meta) else None
        outcome = self._outcome
        return outcome if outcome is not None and outcome["status"] == states.SUCCESS else None

    def stored_outcome(self) -> Mapping[str, Any] | None:
        """Return the meta data of the result, failure or revocation that the run has stored.

        The run then only has to publish it. If the time of a failure or of a revocation cannot be
        compared, it may be that of an earlier sending.
        """
        if self._outcome is None and self.time_start and self.store_errors:
            meta = self._read(lambda: read_meta(self.task.backend, self.id))
            if meta is not None and self._is_own_outcome(meta):
                self._outcome = meta
        return self._outcome

    def _is_own_outcome(self, meta: Mapping[str, Any]) -> bool:
        """Return whether a state of the task is the outcome of this run."""
        status = meta["status"]
        return status in ENDINGS and self._is_own_result(meta, otherwise=status == states.SUCCESS)

    def _success_was_stored(self) -> Any:
        """Return the meta data of a stored success, for Celery 5.7 after the loss of a child."""
        success = self.stored_success() if self.time_start else self._read_success()
        return success or False

    def _read_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of a stored success, maybe that of another run with the same id.

        The read is not repeated without limit, because it blocks the loop that serves all children.
        Celery reads and stores results in this thread, too. Another thread could hold a lock of the
        backend during a fork, and deadlock the new child.
        """
        if self.ignore_result:
            return None
        read = getattr(super(), "_success_was_stored", None)
        if read is not None:
            return self._read(lambda: read() or None)
        meta = self._read(lambda: read_meta(self.task.backend, self.id))
        return meta if meta is not None and meta["status"] == states.SUCCESS else None

    def _read(self, read: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
        """Return what a function reads from the backend; None if it cannot be read."""
        if not can_access_results(self.task.backend):
            return None
        try:
            return read()
        except Exception:
            # A backend may raise any exception; it must not end the loop that serves all children.
            logger.exception(
                "job %s: could not read whether its run has stored an outcome in Celery's result"
                " backend; handling the run as one without a stored outcome", self.id,
            )  # fmt: skip
            return None

    def _is_own_result(self, meta: Mapping[str, Any], *, otherwise: bool = True) -> bool:
        """Return whether a result may be of this run.

        An id can be used again. The backends for key-value stores then keep the first success.
        """
        done = meta.get("date_done")
        done = datetime.fromisoformat(done) if isinstance(done, str) else done
        if not isinstance(done, datetime) or done.tzinfo is None:
            return otherwise  # the time cannot be compared
        return done.timestamp() >= (self.time_start or 0)
