"""Reasons and messages of Celery's exceptions, and exceptions of jobcast's own for endings."""

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
    """A run was stopped because its worker lost the connection to the broker, and so the task."""


class NotSent(Exception):
    """The task's message did not reach the broker, as far as the sender knows."""


class Unacceptable(Exception):
    """A worker could not read the task's message, or not take it for one."""


class StepFailed(Exception):
    """An earlier step of a chain or chord failed, so that this one never runs."""


#: The first that fits an exception is its reason.
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
    (Unacceptable, "rejected"),
)

_HOW_IT_ENDED: Final = re.compile(r"prematurely: (.+?)\.?( Job: \d+\.?)?$")


def reason_of(exc: BaseException) -> Reason:
    """Return the reason of a failure, of Celery's exceptions or any other."""
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
            how = _HOW_IT_ENDED.search(str(exc))
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
    """Return the message for followers of work that is no task."""
    if isinstance(exc, SystemExit | KeyboardInterrupt):
        return failures.failure_message(exc)
    return failure_message(exc)


def original_exception(exc: BaseException, known: BaseException | None = None) -> BaseException:
    """Return the exception that the task raised, where Celery replaced it by one that pickles.

    Args:
        exc: what Celery passes on.
        known: what it may stand for, beside what is being handled.
    """
    at_hand = [*_with_those_before(sys.exc_info()[1]), *_with_those_before(known)]
    if any(found is exc for found in at_hand):
        return exc
    for found in at_hand:
        if _stands_for(exc, found):
            return found
    if isinstance(exc, UnpickleableExceptionWrapper):
        restored: BaseException = exc.restore()
        return restored
    return exc


def _with_those_before(exc: BaseException | None) -> list[BaseException]:
    """An exception, and those that were being handled when it was raised."""
    found: list[BaseException] = []
    while exc is not None and not any(exc is one for one in found):
        found.append(exc)
        exc = exc.__context__
    return found


def _stands_for(exc: BaseException, found: BaseException) -> bool:
    kind = type(found)
    if isinstance(exc, UnpickleableExceptionWrapper):
        return (kind.__module__, kind.__name__) == (exc.exc_module, exc.exc_cls_name)
    # Celery makes one of the nearest base class that can be pickled, of the same arguments.
    return (
        type(exc) in kind.__mro__[1:]
        and len(exc.args) == len(found.args)
        and all(map(operator.is_, exc.args, found.args))
    )
