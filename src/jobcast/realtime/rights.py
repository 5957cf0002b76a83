"""Checks which connections may follow a job, or list a feed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from jobcast.errors import JobcastError, TransportUnavailable
from jobcast.events import Refusal
from jobcast.realtime.application_function import FunctionTimeout
from jobcast.realtime.authorization import Authorizer
from jobcast.realtime.connection.refusals import shown
from jobcast.targets import FOLLOW, LIST, JobTarget, Target
from jobcast.tokens import Subject

CHECKED_AT_ONCE: Final = 100  # connections per group; the event loop runs between groups
MAX_TOKENS: Final = 3  # checks of a connection that refreshes its token; other followers wait

NOT_FOUND: Final = Refusal(
    code="job_not_found", message="this job does not exist, or you may not follow it"
)
FEED_NOT_ALLOWED: Final = Refusal(
    code="feed_not_allowed", message="this feed does not exist, or you may not list it"
)
FAILED: Final = Refusal(
    code="internal_error", message="the server could not check the client's rights"
)
UNDECIDED: Final = Refusal(
    code="unavailable",
    message="the server could not check the client's rights in time; try again in a moment",
)

logger = logging.getLogger(__name__)


class NotAllowed(JobcastError):
    """A connection may not follow a record.

    Attributes:
        refusal: the answer to the connection's request.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Rights(Protocol):
    """Decides which connections may follow a record, and handles rights that end."""

    async def refused(self, target: JobTarget, sids: Sequence[str]) -> Mapping[str, Refusal]:
        """Return the connections that may not follow a job, each with the reason.

        Raises:
            TransportUnavailable: the rights cannot be checked now. The relay sends no events until
                they can be.
        """

    def ended(self, job_id: str, sid: str, refusal: Refusal) -> None:
        """Handle the end of a connection's right. The connection has already left the job."""


class SubjectRights:
    """Rights of connections by the subjects of their tokens.

    Args:
        authorizer: checks a subject's right.
        subject_of: returns the subject of a connection, or None if the connection has closed.
        on_ended: called with the connection, the job and the reason when a right ends.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        subject_of: Callable[[str], Subject | None],
        on_ended: Callable[[str, str, Refusal], None],
    ) -> None:
        self._authorizer = authorizer
        self._subject_of = subject_of
        self._on_ended = on_ended

    async def refused(self, target: Target, sids: Sequence[str]) -> Mapping[str, Refusal]:
        """Return the connections that may not follow a job or list a feed, each with the reason."""
        refused: dict[str, Refusal] = {}
        failures: list[Exception] = []
        is_job = isinstance(target, JobTarget)
        for start in range(0, len(sids), CHECKED_AT_ONCE):
            group = sids[start : start + CHECKED_AT_ONCE]
            answers = await self._ask(target, group)
            for sid, answer in answers.items():
                if isinstance(answer, FunctionTimeout):
                    refused[sid] = UNDECIDED
                elif isinstance(answer, Exception):
                    failures.append(answer)
                    refused[sid] = FAILED
                elif not answer:
                    refused[sid] = NOT_FOUND if is_job else FEED_NOT_ALLOWED
            if UNDECIDED in refused.values():
                # Each further group could time out too, and the other followers wait.
                refused.update(dict.fromkeys(sids[start + CHECKED_AT_ONCE :], UNDECIDED))
                break
        name = f"job {target.id}" if isinstance(target, JobTarget) else f"feed {shown(target.name)}"
        self._report(name, len(sids), refused, failures)
        return refused

    async def _ask(self, target: Target, sids: Sequence[str]) -> dict[str, bool | Exception]:
        """Check several connections concurrently. The result has a boolean or an error for each."""
        asking = (self._may_use(target, sid) for sid in sids)
        answers: dict[str, bool | Exception] = {}
        for sid, answer in zip(
            sids, await asyncio.gather(*asking, return_exceptions=True), strict=True
        ):
            if isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
            answers[sid] = answer
        return answers

    def _report(
        self,
        name: str,
        checked: int,
        refused: Mapping[str, Refusal],
        failures: Sequence[Exception],
    ) -> None:
        """Log failures and timeouts of the rule.

        Raises:
            TransportUnavailable: the transport was unavailable for one of the checks.
        """
        for failure in failures:
            if isinstance(failure, TransportUnavailable):
                raise failure
        if failures:
            logger.error(
                "%s: JOBCAST_AUTHORIZE raised an exception for %d of %d followers; they leave it",
                name, len(failures), checked, exc_info=failures[0],
            )  # fmt: skip
        undecided = sum(refusal is UNDECIDED for refusal in refused.values())
        if undecided:
            logger.error(
                "%s: JOBCAST_AUTHORIZE did not answer in time for %d of %d followers; they leave it"
                " and may join it again (JOBCAST_AUTHORIZE_TIMEOUT)",
                name, undecided, checked,
            )  # fmt: skip

    def ended(self, job_id: str, sid: str, refusal: Refusal) -> None:
        self._on_ended(sid, job_id, refusal)

    async def _may_use(self, target: Target, sid: str) -> bool:
        action = FOLLOW if isinstance(target, JobTarget) else LIST
        for _ in range(MAX_TOKENS):
            subject = self._subject_of(sid)
            if subject is None:
                break
            allowed = await self._authorizer.allows(subject, action, target)
            # The connection may have refreshed its token during the check.
            if self._subject_of(sid) is subject:
                return allowed
        return False
