"""Reasons and messages of Celery's exceptions, and jobcast's own exceptions for failed jobs."""

from __future__ import annotations

import operator
import re
import sys
from typing import Final

from celery.exceptions import (
    Ignore,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
    TaskRevokedError,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
)
from celery.utils.serialization import UnpickleableExceptionWrapper

from jobcast.events import Reason
from jobcast.publishing import failures


class Expired(TaskRevokedError):
    """The task was not started before it expired."""


class BrokerLost(Exception):
    """The worker lost its connection to the broker, and so stopped the run."""


class NotSent(Exception):
    """The sender could not deliver the task's message to the broker."""


class RolledBack(Exception):
    """The transaction that was to send the task was rolled back."""


class Unacceptable(Exception):
    """A worker could not decode the task's message, or rejected its contents."""


class RunCancelled(Ignore):
    """A cancelled run has ended its job, and stored its outcome."""


class StepFailed(Exception):
    """An earlier step of a chain or chord failed, so this step never runs."""


#: The reasons by type of exception. The first match applies.
REASONS: Final[tuple[tuple[type[BaseException], Reason], ...]] = (
    (SoftTimeLimitExceeded, "time_limit"),
    (TimeLimitExceeded, "time_limit"),
    (WorkerLostError, "worker_lost"),
    (WorkerShutdown, "worker_lost"),
    (BrokerLost, "worker_lost"),
    (Terminated, "revoked"),
    (TaskRevokedError, "revoked"),
    (Reject, "rejected"),
    (Ignore, "rejected"),
    (NotRegistered, "rejected"),
    (NotSent, "rejected"),
    (RolledBack, "rejected"),
    (Unacceptable, "rejected"),
)

_EXIT_STATUS: Final = re.compile(r"prematurely: (.+?)\.?( Job: \d+\.?)?$")


def reason_of(exc: BaseException) -> Reason:
    """Return the reason of a failure with one of Celery's exceptions or any other."""
    if isinstance(exc.__cause__, WorkerShutdown):
        return "worker_lost"
    if isinstance(exc, Expired):
        return "expired"
    reasons = (reason for kind, reason in REASONS if isinstance(exc, kind))
    return next(reasons, failures.reason_of(exc))


def failure_message(exc: BaseException) -> str:
    """Return the message for followers of a task that failed with ``exc``."""
    if isinstance(exc.__cause__, WorkerShutdown):
        return failure_message(exc.__cause__)
    match exc:
        case WorkerLostError():
            how = _EXIT_STATUS.search(str(exc))
            if how is None:
                return "The worker process running this job was lost"
            if "signal 9" in how[1]:
                return "The worker process running this job was killed (out of memory?)"
            return f"The worker process running this job ended unexpectedly ({how[1]})"
        case WorkerShutdown():
            return "The worker was stopped while it ran this job"
        case BrokerLost():
            return "The worker that ran this job lost its connection to the queue"
        case SystemExit() | KeyboardInterrupt():
            return "The worker process running this job ended unexpectedly"
        case TimeLimitExceeded(args=[seconds, *_]):
            return f"The job was stopped: it took longer than {seconds} s"
        case SoftTimeLimitExceeded() | TimeLimitExceeded():
            return "The job took longer than it may"
        case Expired():
            return "The job expired before a worker was free to start it"
        case Terminated():
            return "The job was cancelled while it ran"
        case TaskRevokedError():
            return "The job was cancelled"
        case NotRegistered():
            return "No worker knows how to do this job"
        case NotSent():
            return "The job could not be sent to a worker"
        case RolledBack():
            return "The request that was to start this job failed, so the job does not run"
        case Unacceptable():
            return "The job was not sent in a way that the worker accepts"
        case StepFailed():
            return "An earlier step failed, so this one does not run"
        case Reject(reason=reason) if reason:
            return str(reason)
        case Reject():
            return "The job was rejected"
        case Ignore() if not str(exc):
            return "The job gave up without a result"
    return failures.failure_message(exc)


def program_failure_message(exc: BaseException) -> str:
    """Return the message for followers of failed work outside of any task."""
    if isinstance(exc, SystemExit | KeyboardInterrupt):
        return failures.failure_message(exc)
    return failure_message(exc)


def original_exception(exc: BaseException, known: BaseException | None = None) -> BaseException:
    """Return the exception that the task raised, if Celery replaced it by a picklable one.

    Args:
        exc: the exception that Celery passes.
        known: a candidate for the original exception, beside the one being handled.
    """
    candidates = [*_with_contexts(sys.exc_info()[1]), *_with_contexts(known)]
    if any(found is exc for found in candidates):
        return exc
    for found in candidates:
        if _replaces(exc, found):
            return found
    if isinstance(exc, UnpickleableExceptionWrapper):
        restored: BaseException = exc.restore()
        return restored
    return exc


def _with_contexts(exc: BaseException | None) -> list[BaseException]:
    """Return an exception and its chain of ``__context__``."""
    found: list[BaseException] = []
    while exc is not None and not any(exc is one for one in found):
        found.append(exc)
        exc = exc.__context__
    return found


def _replaces(exc: BaseException, found: BaseException) -> bool:
    kind = type(found)
    if isinstance(exc, UnpickleableExceptionWrapper):
        return (kind.__module__, kind.__name__) == (exc.exc_module, exc.exc_cls_name)
    # Celery creates an instance of the nearest picklable base class with the same arguments.
    return (
        type(exc) in kind.__mro__[1:]
        and len(exc.args) == len(found.args)
        and all(map(operator.is_, exc.args, found.args))
    )
