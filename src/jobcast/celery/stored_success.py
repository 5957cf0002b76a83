"""Recognise that a run has stored its success before Celery lost or terminated it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from celery import states
from celery.worker.request import Request

from jobcast.celery.result_backend import can_access_results, read_meta

logger = logging.getLogger(__name__)


class StoredSuccess(Request):
    """A request that knows whether its run has stored its success."""

    _success: Mapping[str, Any] | None = None  # the meta data of the result

    def stored_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of the result if the run has stored its success.

        A child stores the result before it publishes the end of the job, and may be lost or
        terminated in between. Celery then keeps the result, so the job has to succeed, too.
        """
        if self._success is None and self.time_start:
            meta = self._read_success()
            self._success = meta if meta and self._is_own_result(meta) else None
        return self._success

    def _success_was_stored(self) -> Any:
        """Answer Celery 5.7, which asks after the loss of a child."""
        success = self.stored_success() if self.time_start else self._read_success()
        return success or False

    def _read_success(self) -> Mapping[str, Any] | None:
        """Return the meta data of a stored success, maybe that of another run with the same id.

        The read is not repeated without limit, because it blocks the loop that serves all children.
        Celery reads and stores results in this thread, too. Another thread could hold a lock of the
        backend during a fork, and deadlock the new child.
        """
        backend = self.task.backend
        if self.ignore_result or not can_access_results(backend):
            return None
        try:
            read = getattr(super(), "_success_was_stored", None)
            if read is not None:
                return read() or None
            meta = read_meta(backend, self.id)
            return meta if meta["status"] == states.SUCCESS else None
        except Exception:
            # A backend may raise any exception; it must not end the loop that serves all children.
            logger.exception(
                "could not read the result of job %s, which its run may have stored before it was"
                " lost; without another outcome, the job ends as lost after JOBCAST_LOST_AFTER",
                self.id,
            )
            return None

    def _is_own_result(self, meta: Mapping[str, Any]) -> bool:
        """Return whether a result may be of this run.

        An id can be used again. The backends for key-value stores then keep the first success.
        """
        done = meta.get("date_done")
        done = datetime.fromisoformat(done) if isinstance(done, str) else done
        if not isinstance(done, datetime) or done.tzinfo is None:
            return True  # the time cannot be compared
        return done.timestamp() >= (self.time_start or 0)
