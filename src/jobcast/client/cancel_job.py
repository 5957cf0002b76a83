"""The request to cancel a job, and its answer."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, Struct

from jobcast.errors import CancelRefused, ClientError
from jobcast.events import CANCEL_MESSAGE_MAX_LENGTH, CancelAccepted, Refusal, check_job_id

#: Seconds within which a client repeats a request after failures that may be temporary. Repeating
#: it is safe: it cancels one sending of a job, however often it arrives.
CANCEL_TIMEOUT: Final = 20.0


class CancelResult(Struct, frozen=True, kw_only=True):
    """The answer to a request to cancel a job.

    Attributes:
        outcome: ``cancelled``: the job was not running, and has ended; ``requested``: it is
            running, and its state is ``cancelling`` until it ends; ``already_ended``: it had ended
            before.
        terminates: whether the worker terminates a run that does not end by itself.
    """

    outcome: str
    terminates: bool = False


def cancel_request(job_id: str, message: str) -> dict[str, Any]:
    """Return the payload of a request.

    Raises:
        InvalidJobId: the job id is not valid.
        ValueError: the message is too long.
    """
    if len(message) > CANCEL_MESSAGE_MAX_LENGTH:
        raise ValueError(
            f"the message should have at most {CANCEL_MESSAGE_MAX_LENGTH} characters, and it has"
            f" {len(message)}"
        )
    return {"job_id": check_job_id(job_id), **({"message": message} if message else {})}


def cancel_result(accepted: CancelAccepted) -> CancelResult:
    terminates = accepted.terminates is not UNSET and accepted.terminates
    return CancelResult(outcome=accepted.outcome, terminates=terminates)


def no_answer(job_id: str, problem: Refusal | ClientError | None) -> CancelRefused:
    """Return the error of a request that had no final answer in time.

    Args:
        job_id: the job.
        problem: why the latest attempt failed; None if the server did not answer.
    """
    code, cause = ("unavailable", "") if problem is None else (problem.code, problem.message)
    return CancelRefused(
        job_id,
        code,
        f"the server did not accept the request to cancel job {job_id} within"
        f" {CANCEL_TIMEOUT:g} s{cause and f': {cause}'}; the job may go on: repeat the request",
    )
