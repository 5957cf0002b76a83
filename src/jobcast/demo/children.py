"""The child processes of the demo: starting, watching and stopping them."""

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

POLL_INTERVAL: Final = 0.05  # seconds between two checks of a condition
READY_TIMEOUT: Final = 60  # seconds that a start may take; generous, for a loaded machine
STOP_TIMEOUT: Final = 5  # seconds that a process may take to stop before it is killed
SHOWN_LINES: Final = 20  # lines shown of the log of a process that ended unexpectedly

T = TypeVar("T")


class Child:
    """A process in its own session, which the terminal's Ctrl-C does not reach.

    Its output goes to the file ``log``.
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
        """The exit code; None while the process runs, negative if a signal ended it."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """The content of the log."""
        return self.log.read_text(errors="replace")

    def send_signal(self, signum: int) -> None:
        self._popen.send_signal(signum)

    def sweep(self) -> None:
        """Kill the process and the rest of its process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


class ChildEnded(JobcastError):
    """A process ended unexpectedly. The message contains the end of its log."""

    def __init__(self, child: Child) -> None:
        code = child.exit_code or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lines = child.output.strip().splitlines()[-SHOWN_LINES:]
        super().__init__(
            f"the {child.name} process ended unexpectedly ({how}); the end of its log:\n"
            + "\n".join(f"    {line}" for line in lines)
        )
        self.child = child


class Children:
    """The running processes, in the order of their start.

    Args:
        directory: the directory of their logs.
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
        """Run a coroutine that needs all processes, and return its result.

        Raises:
            ChildEnded: a process ended before the coroutine.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self._check()
                await asyncio.wait({task}, timeout=POLL_INTERVAL)
            if task.exception() is not None:
                # The end of a process may be the cause, and be visible only a moment later.
                await asyncio.sleep(POLL_INTERVAL)
                self._check()
            return task.result()
        finally:
            await cancel_and_wait(task)

    def _check(self) -> None:
        """Check that all processes run.

        Raises:
            ChildEnded: a process has ended.
        """
        for child in self._running:
            if child.exit_code is not None:
                raise ChildEnded(child)

    async def wait_finished(self, child: Child) -> str:
        """Wait for a process that exits by itself, and return its output.

        Raises:
            ChildEnded: the process failed.
        """
        self._running.remove(child)  # `guard` must not report its end
        try:
            await until(lambda: child.exit_code is not None, f"end of the {child.name}")
        finally:
            child.sweep()
        if child.exit_code:
            raise ChildEnded(child)
        return child.output

    def hurry(self) -> None:
        """Make :meth:`stop` kill the processes without waiting."""
        self._hurry = True

    async def stop(self) -> None:
        """Stop all processes, in reverse order of their start."""
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
    """Wait until a condition returns a true value, and return that value.

    Args:
        condition: is called every ``POLL_INTERVAL`` seconds.
        what: a noun for the error message.
        timeout: maximum time to wait, in seconds.

    Raises:
        JobcastError: the condition did not become true in time.
    """
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise JobcastError(f"no {what} within {timeout:.0f} s")
        await asyncio.sleep(POLL_INTERVAL)
    return answer
