"""Requests of clients to cancel jobs."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from msgspec import UNSET

from jobcast.events import CancelAccepted, CancelJob, Refusal
from jobcast.realtime import metrics
from jobcast.realtime.authorization import Authorizer
from jobcast.realtime.connection.refusals import RefusalLog, shown
from jobcast.realtime.rights import NOT_FOUND
from jobcast.settings import Settings
from jobcast.targets import CANCEL, FOLLOW
from jobcast.tokens import Subject
from jobcast.transports import Source
from jobcast.transports.cancellation import Cancellation, SupportsCancellation

# A job that does not exist, and one that the subject may not follow or not cancel: the answer does
# not tell them apart.
NOT_ALLOWED: Final = Refusal(
    code=NOT_FOUND.code, message="this job does not exist, or you may not cancel it"
)
NOT_CANCELLABLE: Final = Refusal(code="not_cancellable", message="this job cannot be cancelled")

logger = logging.getLogger(__name__)


class CancelService:
    """Cancels jobs for subjects that may follow them and may cancel them.

    Args:
        source: the transport's source of events.
        settings: the transport's URL.
        authorizer: checks a subject's rights.
        refusals: the log of refused requests.
        check_revocations: raises TokenError for a subject whose token was revoked.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        authorizer: Authorizer,
        refusals: RefusalLog,
        check_revocations: Callable[[Subject], Awaitable[None]],
    ) -> None:
        self._source = source
        self._scheme = urlsplit(settings.url).scheme
        self._authorizer = authorizer
        self._refusals = refusals
        self._check_revocations = check_revocations

    @property
    def is_available(self) -> bool:
        """Whether the transport can cancel jobs."""
        return isinstance(self._source, SupportsCancellation)

    async def cancel(self, subject: Subject, request: CancelJob) -> CancelAccepted | Refusal:
        """Cancel a job, or ask its running worker to stop.

        Raises:
            TokenError: the subject's token was revoked since its verification.
            TransportUnavailable: the request may not have been stored.
            FunctionFailed, FunctionTimeout: ``JOBCAST_AUTHORIZE`` did not decide.
        """
        job_id = request.job_id
        await self._check_revocations(subject)
        grant = await self._authorizer.grant(subject, job_id, (FOLLOW, CANCEL))
        if grant is None:
            return self._refused(subject, job_id, NOT_ALLOWED)
        if not isinstance(self._source, SupportsCancellation):
            message = f"the transport {self._scheme}:// of this server cannot cancel jobs"
            return self._refused(
                subject, job_id, Refusal(code=NOT_CANCELLABLE.code, message=message)
            )
        # Another owner may use the id since the check, which may take seconds.
        owner = UNSET if grant.target is None else grant.target.owner
        answer = await self._source.cancel(
            Cancellation(job_id=job_id, by=subject.sub, message=request.message, owner=owner)
        )
        if answer.outcome == "job_not_found":
            return self._refused(subject, job_id, NOT_ALLOWED)
        if answer.outcome == "not_cancellable":
            return self._refused(subject, job_id, NOT_CANCELLABLE)
        logger.info("cancel %s: %s: sub=%s", job_id, answer.outcome, shown(subject.sub))
        metrics.CANCELLATIONS.labels(answer.outcome).inc()
        is_running = answer.outcome == "requested"
        return CancelAccepted(
            job_id=job_id,
            outcome=answer.outcome,
            terminates=answer.terminates if is_running else UNSET,
        )

    def _refused(self, subject: Subject, job_id: str, refusal: Refusal) -> Refusal:
        self._refusals.info("cancel %s: %s: sub=%s", job_id, refusal.code, shown(subject.sub))
        metrics.REFUSED.labels(refusal.code).inc()
        return refusal
