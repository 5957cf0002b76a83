"""The synchronous client against the real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from jobcast.client.sync import JobClient
from jobcast.errors import (
    ClientError,
    ConnectionRefused,
    InvalidJobId,
    JobFailed,
    JobNotEnded,
    JoinRefused,
)
from jobcast.events import JobComplete, JobEvent, JobGap, JobLog
from jobcast.revocation import revoke
from jobcast.settings import Settings
from jobcast.transports import Retention, TransportPublisher, open_publisher
from tests.conftest import Valkey
from tests.support import SHORT_LIVED, Server, free_port, new_id, running, wait_for

Token = Callable[..., str]


class Job:
    """A job whose events the test publishes."""

    def __init__(self, publisher: TransportPublisher) -> None:
        self.id = new_id()
        self._publisher = publisher

    def emit(self, event: str, **data: object) -> None:
        self._publisher.emit(event, data, room=f"job_{self.id}")

    def start(self) -> None:
        self.emit("job_status", status="started", task="shop.export", attempt=1)

    def log(self, message: str) -> None:
        self.emit("job_log", level="info", message=message)

    def complete(self, result: object) -> None:
        self.emit("job_complete", result=result)


@pytest.fixture
def job(valkey: Valkey) -> Iterator[Job]:
    publisher = open_publisher(valkey.url)
    yield Job(publisher)
    publisher.close()


@pytest.fixture
def client(server: Server, job: Job, token: Token) -> Iterator[JobClient]:
    with JobClient(server.url, token(jobs=[job.id])) as client:
        yield client


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@contextmanager
def serving(valkey: Valkey, folder: Path, port: int, **env: str) -> Iterator[Server]:
    with running(Server(folder / "server.log", valkey.url, env, port)) as server:
        yield server.ready()


def calls_of(client: JobClient) -> list[Callable[[str], object]]:
    """Return all calls of a client, each of which ends at once if the server refuses it."""
    return [client.state, client.wait, lambda job_id: list(client.follow(job_id))]


class Following:
    """A call of ``follow`` in a thread, with the events that it has yielded."""

    def __init__(self, pool: ThreadPoolExecutor, client: JobClient, job: Job) -> None:
        self.items: list[JobEvent | JobGap] = []
        self.call: Future[None] = pool.submit(self._follow, client, job)

    def _follow(self, client: JobClient, job: Job) -> None:
        for item in client.follow(job.id):
            self.items.append(item)

    @property
    def lines(self) -> list[str]:
        return [item.message for item in self.items if isinstance(item, JobLog)]

    def wait_lines(self, count: int) -> None:
        def arrived() -> bool:
            if self.call.done():
                self.call.result()
            return len(self.lines) >= count

        wait_for(arrived, f"{count} log lines")


def test_state_has_the_fields_of_the_job(client: JobClient, job: Job) -> None:
    job.start()
    job.log("first")
    job.log("second")
    job.emit("job_progress", percentage=40, message="busy")
    state = client.state(job.id, logs=1)
    assert (state.status, state.task, state.attempt) == ("started", "shop.export", 1)
    assert state.progress == {"percentage": 40, "message": "busy"}
    assert state.log_lines == 2
    assert [line["message"] for line in state.logs] == ["second"]
    assert state.started_at is not None
    assert not state.has_ended


def test_wait_returns_the_result(client: JobClient, job: Job, pool: ThreadPoolExecutor) -> None:
    job.start()
    waiting = pool.submit(client.wait, job.id, timeout=60)
    wait_for(lambda: client.state(job.id).status == "started", "started job")
    job.complete({"rows": 7})
    assert waiting.result() == {"rows": 7}
    assert client.wait(job.id, timeout=0) == {"rows": 7}


def test_wait_raises_the_error_of_the_job(client: JobClient, job: Job) -> None:
    job.emit("job_error", error="KeyError", message="no such row", reason="failure")
    with pytest.raises(JobFailed, match="no such row") as caught:
        client.wait(job.id)
    assert (caught.value.error, caught.value.reason) == ("KeyError", "failure")


def test_wait_ends_after_its_timeout(client: JobClient, job: Job) -> None:
    job.start()
    with pytest.raises(TimeoutError) as caught:
        client.wait(job.id, timeout=0.2)
    assert isinstance(caught.value, JobNotEnded)
    assert caught.value.status == "started"
    assert str(caught.value) == (
        f"job {job.id} is started after 0.2 s: wait longer, or follow its events"
    )


def test_follow_yields_history_and_live_events_to_the_end(
    client: JobClient, job: Job, pool: ThreadPoolExecutor
) -> None:
    job.start()
    job.log("early \u2028 line")
    following = Following(pool, client, job)
    following.wait_lines(1)
    job.log("late")
    job.complete(3)
    following.call.result()
    assert following.lines == ["early \u2028 line", "late"]
    end = following.items[-1]
    assert isinstance(end, JobComplete)
    assert end.result == 3


def test_follow_after_a_state_yields_later_events_only(client: JobClient, job: Job) -> None:
    job.start()
    job.log("early")
    cursor = client.state(job.id).cursor
    job.log("late")
    job.complete(3)
    events = list(client.follow(job.id, after=cursor))
    assert [getattr(event, "message", "") for event in events] == ["late", ""]
    assert list(client.follow(job.id, after=client.state(job.id).cursor)) == []


def test_stopped_follow_closes_its_stream(client: JobClient, job: Job, server: Server) -> None:
    job.log("one")
    events = client.follow(job.id)
    next(events)
    events.close()
    assert client.state(job.id).log_lines == 1


def test_restarted_server_only_delays_events(
    valkey: Valkey, tmp_path: Path, job: Job, token: Token, pool: ThreadPoolExecutor
) -> None:
    port = free_port()
    with JobClient(f"http://127.0.0.1:{port}", token(jobs=[job.id])) as client:
        with serving(valkey, tmp_path, port) as server:
            job.start()
            job.log("0")
            waiting = pool.submit(client.wait, job.id)
            following = Following(pool, client, job)
            following.wait_lines(1)
            server.kill()
        job.log("1")
        with serving(valkey, tmp_path, port):
            job.log("2")
            following.wait_lines(3)
            job.complete("done")
            following.call.result()
            assert following.lines == ["0", "1", "2"]
            assert waiting.result() == "done"


def test_draining_server_only_delays_events(
    valkey: Valkey, tmp_path: Path, job: Job, token: Token, pool: ThreadPoolExecutor
) -> None:
    port = free_port()
    with JobClient(f"ws://127.0.0.1:{port}/", token(jobs=[job.id])) as client:
        with serving(valkey, tmp_path, port, JOBCAST_DRAIN_SECONDS="0") as server:
            job.log("0")
            following = Following(pool, client, job)
            following.wait_lines(1)
            server.stop()
        with serving(valkey, tmp_path, port):
            job.log("1")
            job.complete(None)
            following.call.result()
    assert following.lines == ["0", "1"]


def test_gap_takes_the_place_of_trimmed_lines(valkey: Valkey, server: Server, token: Token) -> None:
    publisher = open_publisher(valkey.url, Retention(size=10))
    job = Job(publisher)
    for number in range(500):  # a store may keep more than the retention
        job.log(str(number))
    job.complete(None)
    publisher.close()
    with JobClient(server.url, token(jobs=[job.id])) as client:
        gap, first, *events = client.follow(job.id)
    assert isinstance(gap, JobGap)
    assert isinstance(first, JobLog)
    assert (gap.after, gap.before) == (0, first.seq)
    assert isinstance(events[-1], JobComplete)


def test_expired_token_is_replaced(
    server: Server, job: Job, token: Token, pool: ThreadPoolExecutor
) -> None:
    calls = threading.Semaphore(0)

    def new_token() -> str:
        calls.release()
        return token(jobs=[job.id], ttl=SHORT_LIVED)

    with JobClient(server.url, new_token) as client:
        job.log("0")
        following = Following(pool, client, job)
        for _ in range(2):
            calls.acquire()
        job.log("1")
        job.complete(None)
        following.call.result()
    assert following.lines == ["0", "1"]


def test_expired_token_without_a_function_ends_follow(
    server: Server, job: Job, token: Token
) -> None:
    job.log("0")
    with JobClient(server.url, token(jobs=[job.id], ttl=1)) as client:
        # On a loaded machine the token may expire before the first event.
        with pytest.raises(ConnectionRefused) as caught:
            list(client.follow(job.id))
    assert caught.value.code == "token_expired"


def test_revoked_token_ends_follow(server: Server, valkey: Valkey, job: Job, token: Token) -> None:
    job.log("0")
    with JobClient(server.url, token(jobs=[job.id], jti=job.id)) as client:
        events = client.follow(job.id)
        next(events)
        revoke(jti=job.id, settings=Settings(url=valkey.url))
        with pytest.raises(ConnectionRefused) as caught:
            next(events)
    assert caught.value.code == "token_revoked"


def test_forbidden_job_is_refused(client: JobClient) -> None:
    for call in calls_of(client):
        with pytest.raises(JoinRefused) as caught:
            call("another")
        assert (caught.value.code, caught.value.job_id) == ("job_not_found", "another")
        with pytest.raises(InvalidJobId):
            call("not an id")


def test_job_id_with_a_slash_is_found(server: Server, token: Token, valkey: Valkey) -> None:
    publisher = open_publisher(valkey.url)
    job_id = f"{new_id()}/events"
    publisher.emit("job_complete", {"result": 7}, room=f"job_{job_id}")
    publisher.close()
    with JobClient(server.url, token(jobs=[job_id])) as client:
        assert client.wait(job_id) == 7
        assert len(list(client.follow(job_id))) == 1


def test_wrong_token_is_refused(server: Server) -> None:
    with JobClient(server.url, "nonsense") as client, pytest.raises(ConnectionRefused) as caught:
        client.state("42")
    assert caught.value.code == "token_invalid"


@pytest.mark.parametrize(
    ("wrong", "given"),
    [
        ("", "it is empty"),
        ("secret\n", "a text with white space"),
        ("s\u00e9cret", "or other characters"),
        (None, "a value of type NoneType"),
        (lambda: None, "a value of type NoneType"),
    ],
)
def test_value_that_is_no_token_is_refused_before_a_request(wrong: Any, given: str) -> None:
    with JobClient(f"http://127.0.0.1:{free_port()}", wrong) as client:
        for call in calls_of(client):
            with pytest.raises(ConnectionRefused, match=given) as caught:
                call("42")
            assert caught.value.code == "token_invalid"
            assert "cret" not in str(caught.value)


def test_failed_token_function_is_the_cause(server: Server) -> None:
    def fail() -> str:
        raise LookupError("no session")

    with JobClient(server.url, fail) as client, pytest.raises(ConnectionRefused) as caught:
        client.wait("42")
    assert caught.value.code == "token_unavailable"
    assert isinstance(caught.value.__cause__, LookupError)


def test_unreachable_server_is_an_error_at_once() -> None:
    with JobClient(f"http://127.0.0.1:{free_port()}", "token") as client:
        for call in calls_of(client):
            with pytest.raises(ConnectionRefused, match="does it run, and is its URL right") as c:
                call("42")
            assert c.value.code == "unreachable"


def test_invalid_url_is_refused() -> None:
    with pytest.raises(ValueError, match="should be a URL such as"):
        JobClient("localhost:8000", "token")


class Scripted(BaseHTTPRequestHandler):
    """Answers requests with the next of the server's scripted answers."""

    def do_GET(self) -> None:
        status, headers, body = self.server.script.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def scripted(*answers: Answer) -> Iterator[str]:
    """Serve answers, one after the other."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        server.script = list(answers)  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def json_answer(body: bytes, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, body


ENDED = json_answer(b'{"job_id":"42","status":"complete","result":7,"news":1}')
STARTED = json_answer(b'{"job_id":"42","status":"started"}')
BUSY = json_answer(b'{"code":"rate_limited","detail":"wait"}', 429, **{"Retry-After": "1"})
BAD_GATEWAY: Answer = (502, {"Content-Type": "text/html"}, b"<h1>Bad Gateway</h1>")


def test_wait_repeats_its_request_after_retry_after() -> None:
    began = time.monotonic()
    with scripted(BUSY, ENDED) as url, JobClient(url, "token") as client:
        assert client.wait("42") == 7
    assert time.monotonic() - began >= 1


def test_proxy_without_its_server_is_an_error_at_once() -> None:
    with scripted(BAD_GATEWAY) as url, JobClient(url, "token") as client:
        with pytest.raises(ConnectionRefused, match="answered 502, and not as a jobcast server"):
            client.wait("42")


def test_wait_goes_on_while_the_proxy_has_no_server() -> None:
    with scripted(STARTED, BAD_GATEWAY, ENDED) as url, JobClient(url, "token") as client:
        assert client.wait("42") == 7


def test_wait_that_ends_early_is_repeated_with_another_token() -> None:
    tokens = iter(("first", "second"))
    with scripted(STARTED, ENDED) as url, JobClient(url, lambda: next(tokens)) as client:
        assert client.wait("42") == 7
    assert list(tokens) == []


def test_problem_at_the_deadline_is_the_cause() -> None:
    with scripted(STARTED, *[BAD_GATEWAY] * 100) as url, JobClient(url, "token") as client:
        client.state("42")
        with pytest.raises(JobNotEnded) as caught:
            client.wait("42", timeout=0.3)
    assert isinstance(caught.value.__cause__, ConnectionRefused)
    assert caught.value.status is None
    assert "did not answer about job 42 within 0.3 s" in str(caught.value)


def test_job_without_an_event_is_pending(client: JobClient, job: Job) -> None:
    assert client.state(job.id).status == "pending"
    with pytest.raises(JobNotEnded, match=f"job {job.id} is pending after 0.1 s"):
        client.wait(job.id, timeout=0.1)


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ((200, {"Content-Type": "text/html"}, b"<html>"), "unreachable", "is its URL right"),
        (json_answer(b'{"ok":true}'), "unreachable", "is its URL right"),
        (json_answer(b"ok"), "unreachable", "is its URL right"),
        ((404, {}, b"not here"), "not_found", "JOBCAST_HTTP_API"),
        ((301, {"Location": "https://b.example/"}, b""), "unreachable", "redirects to https://b"),
    ],
)
def test_another_server_is_recognised(answer: Answer, code: str, message: str) -> None:
    with scripted(answer, answer, answer) as url, JobClient(url, "token") as client:
        for call in calls_of(client):
            with pytest.raises(ClientError, match=message) as caught:
                call("42")
            assert caught.value.code == code


def test_given_http_client_stays_open() -> None:
    with httpx.Client() as http, scripted(ENDED) as url:
        with JobClient(url, "token", http=http) as client:
            assert client.wait("42") == 7
        assert not http.is_closed
