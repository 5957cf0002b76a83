"""Authorization: which subject may follow which job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from jobcast.realtime.application_function import ApplicationFunction
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Source

Rule = Callable[[Subject, str, str | None], bool | Awaitable[bool]]
"""The type of the function that ``JOBCAST_AUTHORIZE`` names.

The function returns whether a subject may follow a job. Its arguments are the verified subject, the
id of the job, and the owner of the job (None if the job has no owner or does not exist). It may be
``async``. A plain function runs in a thread, so it may query a database.
"""


class Grant(Struct, frozen=True):
    """The right to follow a job as long as the job has this owner."""

    owner: str | None = None
    any_owner: bool = False  # whether the right holds for every owner

    def covers(self, owner: str | None) -> bool:
        """Return whether the right holds for a record with this owner."""
        return self.any_owner or self.owner == owner


EVERY_OWNER: Final = Grant(any_owner=True)


class Authorizer:
    """Authorization of subjects, by owner or by the ``JOBCAST_AUTHORIZE`` rule.

    Raises:
        SettingsError: ``JOBCAST_AUTHORIZE`` does not name a function.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._source = source
        self._rule = (
            None
            if settings.authorize is None
            else ApplicationFunction(
                "JOBCAST_AUTHORIZE", settings.authorize, settings.authorize_timeout, bool
            )
        )

    def close(self) -> None:
        """Release the rule's threads. Later calls start new ones."""
        if self._rule is not None:
            self._rule.close()

    async def grant(self, subject: Subject, job_id: str) -> Grant | None:
        """Return the subject's right to follow a job, or None if it has no right.

        Raises:
            TransportUnavailable: the transport cannot read the job's owner.
            FunctionFailed, FunctionTimeout: see :meth:`allows`.
        """
        if self._rule is None and _is_listed(subject, job_id):
            return EVERY_OWNER
        owner = (await self._source.info(job_id)).owner
        return Grant(owner) if await self.allows(subject, job_id, owner) else None

    async def allows(self, subject: Subject, job_id: str, owner: str | None) -> bool:
        """Return whether the subject may follow the job if ``owner`` owns the job.

        Raises:
            FunctionFailed: the ``JOBCAST_AUTHORIZE`` function raised an exception.
            FunctionTimeout: the function did not return within ``JOBCAST_AUTHORIZE_TIMEOUT``.
        """
        if self._rule is None:
            return owner == subject.sub or _is_listed(subject, job_id)
        return await self._rule(subject, job_id, owner)


def _is_listed(subject: Subject, job_id: str) -> bool:
    return job_id in subject.jobs or "*" in subject.jobs
