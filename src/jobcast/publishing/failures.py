"""Reasons and messages of failures, as followers of a job see them."""

from __future__ import annotations

from typing import Final

from jobcast.errors import JobCancelled
from jobcast.events import Reason
from jobcast.publishing.sanitize import safe_text
from jobcast.transports.cancellation import DEFAULT_MESSAGE as DEFAULT_MESSAGE_OF_CANCELLED

DEFAULT_MESSAGE: Final = "The job failed, and did not say why"


def reason_of(exc: BaseException) -> Reason:
    """Return the reason of a failure outside of any task framework."""
    if isinstance(exc, JobCancelled):
        return "cancelled"
    return "worker_lost" if isinstance(exc, SystemExit | KeyboardInterrupt) else "failure"


def failure_message(exc: BaseException) -> str:
    """Return the message for followers: the exception's own text, or a default message."""
    match exc:
        case JobCancelled():
            return safe_text(exc.message) or DEFAULT_MESSAGE_OF_CANCELLED
        case SystemExit():
            return "The program that did this job ended before the job was done"
        case KeyboardInterrupt():
            return "The program that did this job was interrupted"
        case MemoryError() if not str(exc):
            return "The job needs more memory than there is"
    return or_default_message(safe_text(exc))


def or_default_message(message: str) -> str:
    """Return ``message``, or the default message if ``message`` is blank."""
    return message if message.strip() else DEFAULT_MESSAGE
