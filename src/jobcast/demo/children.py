"""The processes of a demo: the demo stops them when it ends, and reports one that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from jobcast.aio import cancel_and_wait
from jobcast.errors import JobcastError

POLL_INTERVAL: Final = 0.05  # seconds between two looks at a condition
READY_TIMEOUT: Final = 60  # seconds that a start may take, on a loaded machine
STOP_TIMEOUT: Final = 5  # seconds that a process may take to stop, before it is killed
SHOWN_LINES: Final = 20  # of the log of a process that died

T = TypeVar("T")


class Child:
    """A process, and all that it starts, in a session of its own: the terminal's Ctrl-C does not
    reach it. Its output goes to ``log``.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        self.stop_signal = signal.SIGTERM
        with log.open("ab") as output:
            self._popen = subprocess.Popen(  # noqa: S603
                argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.pid = self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._popen.poll()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def send_signal(self, signum: int) -> None:
        self._popen.send_signal(signum)

    def sweep(self) -> None:
        """Kill what is left of it, and of what it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


class ChildEnded(JobcastError):
    """A process ended that should have gone on. The message has the end of its log."""

    def __init__(self, child: Child) -> None:
        code = child.exit_code or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lines = child.said.strip().splitlines()[-SHOWN_LINES:]
        super().__init__(
            f"the {child.name} process ended unexpectedly ({how}); the end of its log:\n"
            + "\n".join(f"    {line}" for line in lines)
        )
        self.child = child


class Children:
    """The processes that run, in the order of their start.

    Args:
        directory: has their logs.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Child] = []
        self._hurry = False

    def start(self, name: str, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Child:
        child = Child(name, argv, log=self._directory / f"{name}.log", cwd=cwd, env=env)
        self._running.append(child)
        return child

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something that takes all the processes.

        Raises:
            ChildEnded: one of them ended meanwhile.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                for child in self._running:
                    if child.exit_code is not None:
                        raise ChildEnded(child)
                await asyncio.wait({task}, timeout=POLL_INTERVAL)
            return task.result()
        finally:
            await cancel_and_wait(task)

    async def finished(self, child: Child) -> str:
        """Wait for a process that has to end by itself. Returns what it said.

        Raises:
            ChildEnded: it failed.
        """
        self._running.remove(child)  # its end is nothing unexpected
        try:
            await until(lambda: child.exit_code is not None, f"end of the {child.name}")
        finally:
            child.sweep()
        if child.exit_code:
            raise ChildEnded(child)
        return child.said

    def hurry(self) -> None:
        """Have :meth:`stop` wait for nothing."""
        self._hurry = True

    async def stop(self) -> None:
        """End all of them, the last one first."""
        while self._running:
            await self._stop(self._running[-1])
            self._running.pop()

    async def _stop(self, child: Child) -> None:
        child.send_signal(child.stop_signal)
        with suppress(JobcastError):
            await until(
                lambda: child.exit_code is not None or self._hurry,
                f"end of the {child.name}",
                STOP_TIMEOUT,
            )
        child.sweep()


async def until(condition: Callable[[], T], what: str, timeout: float = READY_TIMEOUT) -> T:
    """Wait for a condition, for ``timeout`` seconds at most, and return what it gave.

    Raises:
        JobcastError: it did not come about in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise JobcastError(f"after {timeout:.0f} s there is still no {what}")
        await asyncio.sleep(POLL_INTERVAL)
    return answer
