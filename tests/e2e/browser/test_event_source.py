"""A browser's EventSource with a session cookie, as docs/how-to/follow-over-http.md writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from jobcast.events import JobComplete, JobLog, JobProgress, JobStatus
from jobcast.transports import Origin, Outgoing, open_publisher
from tests.conftest import Valkey
from tests.e2e.documented import Page as Document
from tests.support import TIMEOUT, Server, running, wait_for

DOCUMENT = Document("docs/how-to/follow-over-http.md")
[_, FOLLOW] = DOCUMENT.code_blocks("js")
[_, ACCOUNTS] = DOCUMENT.code_blocks("python")
SESSION = "3f9a0c21d4e8"


@pytest.fixture
def server(valkey: Valkey, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "accounts.py").write_text(ACCOUNTS)
    env = {"JOBCAST_AUTHENTICATE": "accounts:user_of", "PYTHONPATH": str(tmp_path)}
    with running(Server(tmp_path / "log", valkey.url, env)) as server:
        yield server.ready()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context()
    context.add_cookies([{"name": "session", "value": SESSION, "url": server.url}])
    page = context.new_page()
    page.set_default_timeout(1000 * TIMEOUT)
    page.goto(f"{server.url}/healthz")
    yield page
    context.close()


def test_event_source_resumes_and_stops_after_the_end(
    server: Server, page: Page, valkey: Valkey, job_id: str
) -> None:
    publisher = open_publisher(valkey.url)

    def publish(*events: Any) -> None:
        publisher.publish([Outgoing.of(event, Origin(owner="alice")) for event in events])

    shown: Callable[[], list[dict[str, Any]]] = lambda: page.evaluate("window.shown")  # noqa: E731
    publish(JobStatus(job_id=job_id, status="started"))
    publish(JobProgress(job_id=job_id, percentage=10))
    page.evaluate(
        f"""(job_id) => {{
            window.shown = [];
            const show = (data) => window.shown.push(data);
            {FOLLOW}
            window.source = source;
        }}""",
        job_id,
    )
    wait_for(lambda: [event.get("percentage") for event in shown()] == [10], "progress")
    server.kill()  # a server that drains may refuse the resumption, which ends the source
    publish(JobLog(job_id=job_id, level="info", message="missed"))
    publish(JobProgress(job_id=job_id, percentage=60))
    server.start()
    server.ready()
    wait_for(lambda: [event.get("percentage") for event in shown()] == [10, 60], "resumption")
    publish(JobComplete(job_id=job_id, result={"rows": 3}))
    wait_for(lambda: len(shown()) == 3, "end of the job")
    assert shown()[2]["result"] == {"rows": 3}
    # The answer 204 closes the source for good.
    wait_for(lambda: page.evaluate("source.readyState") == 2, "end of the source")
    wait_for(lambda: f'/jobs/{job_id}/events HTTP/1.1" 204' in server.log, "answer 204")
    assert len(shown()) == 3
    publisher.close()
