"""Authorization: which subject may follow which job."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from importlib import import_module
from typing import Any, Final

from msgspec import Struct

from jobcast.errors import JobcastError, SettingsError
from jobcast.realtime.rule_threads import NoThread, RuleThreads
from jobcast.settings import Settings
from jobcast.tokens import Subject
from jobcast.transports import Source

Rule = Callable[[Subject, str, str | None], bool | Awaitable[bool]]
"""The type of the function that ``JOBCAST_AUTHORIZE`` names.

The function returns whether a subject may follow a job. Its arguments are the verified subject, the
id of the job, and the owner of the job (None if the job has no owner or does not exist). It may be
``async``. A plain function runs in a thread, so it may query a database.
"""


class RuleFailed(JobcastError):
    """The ``JOBCAST_AUTHORIZE`` function raised an exception (``__cause__``)."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"JOBCAST_AUTHORIZE raised {type(cause).__name__}")


class RuleTimeout(JobcastError):
    """The ``JOBCAST_AUTHORIZE`` function did not return within its timeout."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"JOBCAST_AUTHORIZE did not answer within {seconds:g} s (JOBCAST_AUTHORIZE_TIMEOUT)"
        )


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

    A rule that is a plain function runs in a dedicated thread pool, so a slow rule delays only the
    requests that wait for its result. After ``JOBCAST_AUTHORIZE_TIMEOUT`` the authorizer cancels
    an ``async`` rule. It ignores the result of a plain function, which occupies its thread until
    it returns.

    Raises:
        SettingsError: ``JOBCAST_AUTHORIZE`` does not name a function.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._source = source
        self._rule = None if settings.authorize is None else _load(settings.authorize)
        self._timeout = settings.authorize_timeout
        self._threads = RuleThreads()

    def close(self) -> None:
        """Release the threads. Later calls start new ones."""
        self._threads.close()
        self._threads = RuleThreads()

    async def grant(self, subject: Subject, job_id: str) -> Grant | None:
        """Return the subject's right to follow a job, or None if it has no right.

        Raises:
            TransportUnavailable: the transport cannot read the job's owner.
            RuleFailed, RuleTimeout: see :meth:`allows`.
        """
        if self._rule is None and _is_listed(subject, job_id):
            return EVERY_OWNER
        owner = await self._source.owner(job_id)
        return Grant(owner) if await self.allows(subject, job_id, owner) else None

    async def allows(self, subject: Subject, job_id: str, owner: str | None) -> bool:
        """Return whether the subject may follow the job if ``owner`` owns the job.

        Raises:
            RuleFailed: the ``JOBCAST_AUTHORIZE`` function raised an exception.
            RuleTimeout: the function did not return within ``JOBCAST_AUTHORIZE_TIMEOUT``.
        """
        if self._rule is None:
            return owner == subject.sub or _is_listed(subject, job_id)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(self._rule, subject, job_id, owner)
        except (NoThread, TimeoutError):
            raise RuleTimeout(self._timeout) from None

    async def _answer(self, rule: Rule, subject: Subject, job_id: str, owner: str | None) -> bool:
        """Return the rule's result; wrap its exceptions in ``RuleFailed``."""
        try:
            return bool(await self._ask(rule, subject, job_id, owner))
        except (GeneratorExit, KeyboardInterrupt, RuleFailed, NoThread):
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuleFailed(exc) from exc
        except BaseException as exc:
            # This includes SystemExit: a rule must not end the process.
            raise RuleFailed(exc) from exc

    async def _ask(self, rule: Rule, subject: Subject, job_id: str, owner: str | None) -> object:
        if inspect.iscoroutinefunction(rule):
            return await rule(subject, job_id, owner)
        answer: Any = await self._threads.call(
            copy_context().run, _answer, rule, subject, job_id, owner
        )
        return await answer if inspect.isawaitable(answer) else answer


def _answer(rule: Rule, subject: Subject, job_id: str, owner: str | None) -> object:
    """Call a rule that is a plain function. Runs in a thread."""
    try:
        return rule(subject, job_id, owner)
    except BaseException as exc:
        # A future cannot hold a StopIteration; its caller would wait forever.
        raise RuleFailed(exc) from exc


def _is_listed(subject: Subject, job_id: str) -> bool:
    return job_id in subject.jobs or "*" in subject.jobs


def _load(path: str) -> Rule:
    module, _, name = path.partition(":")
    try:
        rule = getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise SettingsError(
            "JOBCAST_AUTHORIZE", f"names {path}, which cannot be imported: {exc}"
        ) from exc
    if not callable(rule):
        raise SettingsError("JOBCAST_AUTHORIZE", f"names {path}, which is not callable")
    return rule  # type: ignore[no-any-return]
