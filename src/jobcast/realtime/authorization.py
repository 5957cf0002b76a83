"""Authorization: which subject may do what with which job or feed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from msgspec import Struct

from jobcast.errors import SettingsError, TransportUnavailable
from jobcast.events import NO_INFO
from jobcast.realtime.application_function import ApplicationFunction
from jobcast.realtime.default_rule import default_rule
from jobcast.settings import Settings
from jobcast.targets import FOLLOW, JobTarget, Target
from jobcast.tokens import Subject
from jobcast.transports import Source

Rule = Callable[[Subject, str, Target], bool | Awaitable[bool]]
"""The type of the function that ``JOBCAST_AUTHORIZE`` names.

The function returns whether a subject may perform an action on a target. Its arguments are the
verified subject, the action (``follow``, ``list`` or ``cancel``; return False for an unknown one),
and a :class:`~jobcast.JobTarget` or a :class:`~jobcast.FeedTarget`. It may be ``async``. A plain
function runs in a thread, so it may query a database.
"""

PARAMETERS: Final = ("subject", "action", "target")
# The names of a rule that decides about following only, by the id and the owner of a job.
FORMER_PARAMETERS: Final = frozenset({"job_id", "owner"})

logger = logging.getLogger(__name__)


class Grant(Struct, frozen=True):
    """The right to act on a job as it was described when the right was checked."""

    target: JobTarget | None = None  # None: the right holds for every record of the job

    def covers(self, target: JobTarget) -> bool:
        """Return whether the right holds for the job as it is described now.

        Another title needs no further check: a job may change its title with every step.
        """
        return self.target is None or _identity(self.target) == _identity(target)


EVERY_RECORD: Final = Grant()


class Authorizer:
    """Authorization of subjects, by the default rule or by the ``JOBCAST_AUTHORIZE`` rule.

    Raises:
        SettingsError: ``JOBCAST_AUTHORIZE`` does not name a rule.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._source = source
        self._rule = None if settings.authorize is None else _load_rule(settings)

    def close(self) -> None:
        """Release the rule's threads. Later calls start new ones."""
        if self._rule is not None:
            self._rule.close()

    async def grant(
        self, subject: Subject, job_id: str, actions: Sequence[str] = (FOLLOW,)
    ) -> Grant | None:
        """Return the subject's right to perform all actions on a job, or None if it lacks one.

        Raises:
            TransportUnavailable: the transport cannot read the job's description.
            FunctionFailed, FunctionTimeout: see :meth:`allows`.
        """
        # A right to a job of which only the id is known does not depend on the job's record.
        any_record = JobTarget(id=job_id)
        if self._rule is None and all(default_rule(subject, each, any_record) for each in actions):
            return EVERY_RECORD
        target = JobTarget.of(job_id, await self._source.info(job_id))
        for action in actions:
            if not await self.allows(subject, action, target):
                return None
        return Grant(target)

    async def allows(self, subject: Subject, action: str, target: Target) -> bool:
        """Return whether the subject may perform the action on the target.

        Raises:
            FunctionFailed: the ``JOBCAST_AUTHORIZE`` function raised an exception.
            FunctionTimeout: the function did not return within ``JOBCAST_AUTHORIZE_TIMEOUT``.
        """
        if self._rule is None:
            return default_rule(subject, action, target)
        return await self._rule(subject, action, target)

    async def current(self, known: JobTarget) -> JobTarget:
        """Return a joined job as the store describes it now.

        The result is ``known``, the description at the time of the last check, if the default rule
        decides, if the record has expired, or if the store cannot be read.
        """
        if self._rule is None:
            return known
        try:
            info = await self._source.info(known.id)
        except TransportUnavailable as exc:
            logger.debug(
                "job %s: could not read its description (%s); checking the rights of its followers"
                " with the former one", known.id, exc,
            )  # fmt: skip
            return known
        return known if info == NO_INFO else JobTarget.of(known.id, info)


def _identity(target: JobTarget) -> tuple[object, ...]:
    return target.owner, target.tags, target.task, target.parent


def _load_rule(settings: Settings) -> ApplicationFunction[bool]:
    """Return the function that ``JOBCAST_AUTHORIZE`` names.

    Raises:
        SettingsError: the setting does not name a function with the parameters of a rule.
    """
    path = settings.authorize or ""
    rule = ApplicationFunction(
        "JOBCAST_AUTHORIZE", path, settings.authorize_timeout, bool, takes=PARAMETERS
    )
    if FORMER_PARAMETERS.intersection(rule.parameters[: len(PARAMETERS)]):
        raise SettingsError(
            "JOBCAST_AUTHORIZE",
            f"names {path}, which takes ({', '.join(rule.parameters)}); a rule takes"
            f" ({', '.join(PARAMETERS)}): the action is a string such as 'follow', and the target a"
            " jobcast.JobTarget, with the job's id and owner, or a jobcast.FeedTarget",
        )
    return rule
