"""Who may follow what."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from jobcast.errors import SettingsError
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Source

#: What ``JOBCAST_AUTHORIZE`` names: it gets the verified subject, the job's id and the job's owner
#: (None if it has none, or does not exist), and may be ``async``. A plain function runs in a
#: thread, so that it may ask a database.
Rule = Callable[[Subject, str, str | None], bool | Awaitable[bool]]


class Authorizer:
    """Decides whether a subject may follow a job.

    Raises:
        SettingsError: ``JOBCAST_AUTHORIZE`` names no function.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._source = source
        self._rule = None if settings.authorize is None else _load(settings.authorize)

    async def allows(self, subject: Subject, job_id: str) -> bool:
        """Whether the subject may follow the job.

        Raises:
            TransportUnavailable: the job's owner cannot be read.
        """
        if self._rule is None:
            jobs = subject.jobs
            if job_id in jobs or "*" in jobs:
                return True
            return await self._source.owner(job_id) == subject.sub
        owner = await self._source.owner(job_id)
        if inspect.iscoroutinefunction(self._rule):
            return bool(await self._rule(subject, job_id, owner))
        answer: Any = await asyncio.to_thread(self._rule, subject, job_id, owner)
        return bool(await answer if inspect.isawaitable(answer) else answer)


def _load(path: str) -> Rule:
    module, _, name = path.partition(":")
    try:
        rule = getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise SettingsError(
            "JOBCAST_AUTHORIZE", f"names {path}, which is not there: {exc}"
        ) from exc
    if not callable(rule):
        raise SettingsError("JOBCAST_AUTHORIZE", f"names {path}, which is no function")
    return rule  # type: ignore[no-any-return]
