"""Functions of the application that settings name, such as ``JOBCAST_AUTHORIZE``."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from contextvars import copy_context
from importlib import import_module
from typing import Any, Generic, TypeVar

from jobcast.errors import JobcastError, SettingsError
from jobcast.realtime.rule_threads import NoThread, RuleThreads

T = TypeVar("T")


class FunctionFailed(JobcastError):
    """A function of the application raised an exception (``__cause__``)."""

    def __init__(self, setting: str, cause: BaseException) -> None:
        super().__init__(f"{setting} raised {type(cause).__name__}")


class FunctionTimeout(JobcastError):
    """A function of the application did not return within its timeout."""

    def __init__(self, setting: str, seconds: float) -> None:
        super().__init__(
            f"{setting} did not answer within {seconds:g} s (JOBCAST_AUTHORIZE_TIMEOUT)"
        )


class ApplicationFunction(Generic[T]):
    """A function that a setting names, with a timeout.

    A plain function runs in a dedicated thread pool, so a slow one delays only the requests that
    wait for its result. After the timeout, an ``async`` function is cancelled. The result of a
    plain function is ignored; it occupies its thread until it returns.

    Args:
        setting: the name of the setting.
        path: the function, as ``package.module:function``.
        timeout: the maximum number of seconds for a call.
        convert: converts or checks the function's result.
        takes: the names of the arguments in the documentation.

    Attributes:
        parameters: the names of the function's positional parameters; empty if Python does not know
            them.

    Raises:
        SettingsError: the path does not name a function that takes these arguments.
    """

    def __init__(
        self,
        setting: str,
        path: str,
        timeout: float,
        convert: Callable[[Any], T],
        *,
        takes: Sequence[str],
    ) -> None:
        self._setting = setting
        self._function = _load(setting, path)
        self.parameters = _parameters(setting, path, self._function, takes)
        self._timeout = timeout
        self._convert = convert
        self._threads = RuleThreads()

    def close(self) -> None:
        """Release the threads. Later calls start new ones."""
        self._threads.close()
        self._threads = RuleThreads()

    async def __call__(self, *args: Any) -> T:
        """Return the function's result.

        Raises:
            FunctionFailed: the function raised an exception, or its result is invalid.
            FunctionTimeout: the function did not return within the timeout.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._answer(args)
        except (NoThread, TimeoutError):
            raise FunctionTimeout(self._setting, self._timeout) from None

    async def _answer(self, args: tuple[Any, ...]) -> T:
        """Return the converted result; wrap exceptions in ``FunctionFailed``."""
        try:
            return self._convert(await self._ask(args))
        except (GeneratorExit, KeyboardInterrupt, FunctionFailed, NoThread):
            raise
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise FunctionFailed(self._setting, exc) from exc
        except BaseException as exc:
            # This includes SystemExit: the function must not end the process.
            raise FunctionFailed(self._setting, exc) from exc

    async def _ask(self, args: tuple[Any, ...]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(*args)
        answer: Any = await self._threads.call(copy_context().run, self._run, args)
        return await answer if inspect.isawaitable(answer) else answer

    def _run(self, args: tuple[Any, ...]) -> Any:
        """Call a plain function. Runs in a thread."""
        try:
            return self._function(*args)
        except BaseException as exc:
            # A future cannot hold a StopIteration; its caller would wait forever.
            raise FunctionFailed(self._setting, exc) from exc


def _load(setting: str, path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise SettingsError(setting, f"names {path}, which cannot be imported: {exc}") from exc
    if not callable(function):
        raise SettingsError(setting, f"names {path}, which is not callable")
    return function  # type: ignore[no-any-return]


def _parameters(
    setting: str, path: str, function: Callable[..., Any], takes: Sequence[str]
) -> list[str]:
    """Return the names of a function's positional parameters.

    Raises:
        SettingsError: the function cannot be called with these arguments.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []  # some functions that are written in C
    try:
        signature.bind(*takes)
    except TypeError:
        raise SettingsError(
            setting,
            f"names {path}, which takes ({', '.join(signature.parameters)}); it should take"
            f" ({', '.join(takes)})",
        ) from None
    return [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
