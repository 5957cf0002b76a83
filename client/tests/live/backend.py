"""A real Valkey, jobcast server and Celery worker for the tests of the TypeScript client.

It prints its URL as one line of JSON. Then it reads commands, one line of JSON each, ``{"id": 1,
"do": "send", ...}``, and prints a line for each, ``{"id": 1, "value": ...}`` or ``{"id": 1,
"error": "..."}``. It stops everything at the end of its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from starlette.applications import Starlette  # noqa: E402
from starlette.routing import Route  # noqa: E402

from jobcast.realtime import create_app as create_plain_app  # noqa: E402
from jobcast.tokens import mint  # noqa: E402
from jobcast.transports import TransportPublisher, open_publisher  # noqa: E402
from tests import jobs  # noqa: E402
from tests.emitting_app import disconnect  # noqa: E402
from tests.paths import paths  # noqa: E402
from tests.support import SECRET, Server, Worker, new_id, running  # noqa: E402
from tests.support.redis_family import RedisProcess  # noqa: E402

# A job must not outgrow the history while a loaded machine restarts the server.
HISTORY = {"JOBCAST_HISTORY_SIZE": "20000"}
SERVER_ENV = {"JOBCAST_MAX_JOBS": "30", **HISTORY}


def create_app() -> Starlette:
    """The Socket.IO server, with routes that count its connections and end one of them."""
    return create_plain_app(
        routes=[
            Route("/paths", paths),
            Route("/disconnect", disconnect, methods=["POST"]),
        ]
    )


class Backend:
    """The commands. Each method is one, and takes its arguments by name."""

    def __init__(
        self, folder: Path, valkey: RedisProcess, server: Server, worker: Worker,
        publisher: TransportPublisher,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._valkey = valkey
        self._server = server
        self._worker = worker
        self._publisher = publisher

    def token(self, sub: str = "alice", **claims: Any) -> str:
        return mint(SECRET, sub, **claims)

    def send(
        self,
        task: str,
        args: list[Any],
        owner: str = "alice",
        title: str | None = None,
        tags: Sequence[str] = (),
        options: dict[str, Any] | None = None,
    ) -> str:
        """Send a task of ``tests/jobs.py`` and return the job's id."""
        sent = getattr(jobs, task).as_job(owner=owner, title=title, tags=tags)
        result = sent.apply_async(
            args, queue=self._worker.name, task_id=new_id(), **(options or {})
        )
        return str(result.id)

    def revoke(self, job_id: str, terminate: bool = False) -> None:
        jobs.app.control.revoke(job_id, terminate=terminate)

    def gate(self) -> str:
        """Return the path of a file that does not exist yet, for jobs to wait for."""
        return str(self._folder / new_id("gate"))

    def open_gate(self, gate: str) -> None:
        Path(gate).touch()

    def emit(self, job_id: str, event: str, times: int = 1, **data: Any) -> None:
        """Publish events of a job. ``{n}`` in a text stands for the number of the repetition."""
        for n in range(times):
            numbered = {
                key: value.replace("{n}", str(n)) if isinstance(value, str) else value
                for key, value in data.items()
            }
            self._publisher.emit(event, numbered, room=f"job_{job_id}")

    def forget_record(self, job_id: str) -> None:
        """Delete a job's record, like its expiry does."""
        keys = self._valkey.command("KEYS", f"jobcast:{{{job_id}}}:*")
        if keys:
            self._valkey.command("DEL", *keys)

    def kill_server(self) -> None:
        self._server.kill()

    def start_server(self) -> None:
        self._server.start()
        self._server.ready()

    def stop_server(self) -> None:
        self._server.stop()

    def kill_valkey(self) -> None:
        self._valkey.kill()

    def start_valkey(self) -> None:
        self._valkey.start()
        self._valkey.ready()

    def logged(self, text: str) -> int:
        """Return how often the server's log contains a text."""
        return self._server.log.count(text)


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="jobcast-client-")))
        valkey = stack.enter_context(running(RedisProcess(folder / "valkey")))
        valkey.ready()
        os.environ["JOBCAST_URL"] = valkey.url
        jobs.app.conf.broker_url = valkey.url
        jobs.app.conf.result_backend = valkey.url
        app = "client.tests.live.backend:create_app"
        server = stack.enter_context(
            running(Server(folder / "server.log", valkey.url, SERVER_ENV, app=app))
        )
        pool = ("--pool=prefork", "--concurrency=2")
        worker = stack.enter_context(
            running(Worker(folder / "worker.log", valkey.url, valkey.url, *pool, env=HISTORY))
        )
        server.ready()
        worker.ready()
        publisher = open_publisher(valkey.url)
        stack.callback(publisher.close)
        backend = Backend(folder, valkey, server, worker, publisher)
        reply({"url": server.url})
        for line in sys.stdin:
            run(backend, json.loads(line))


def run(backend: Backend, command: dict[str, Any]) -> None:
    number, name = command.pop("id"), command.pop("do")
    method: Callable[..., Any] = getattr(backend, name)
    try:
        reply({"id": number, "value": method(**command)})
    except Exception as exc:  # the calling test raises it
        reply({"id": number, "error": f"{type(exc).__name__}: {exc}"})


def reply(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
