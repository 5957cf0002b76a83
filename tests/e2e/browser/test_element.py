"""The element ``<jobcast-job>`` in pages without a build step, with real jobs and servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from jobcast.events import (
    JobComplete,
    JobError,
    JobEvent,
    JobInfoUpdate,
    JobLog,
    JobProgress,
    JobStatus,
)
from jobcast.transports import Origin, Outgoing, open_publisher
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.element_site import HTMX, Site, serving_site
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_accessibility import violations
from tests.support import ROOT, SHORT_LIVED, Server, Worker, new_id, running, wait_for

Publish = Callable[..., None]
Open = Callable[..., Tab]

NPM = ROOT / "client" / "dist"

RECORD_EVENTS = """
window.seen = [];
for (const name of ["status", "info", "progress", "log", "end", "refused"]) {
  document.addEventListener(`jobcast:${name}`, ({ type, detail }) => seen.push([type, detail]));
}
"""
STYLE = """
(element, name) => {
  const style = getComputedStyle(element.shadowRoot.querySelector(`[part~="${name}"]`));
  return Object.fromEntries(["backgroundColor", "color", "borderTopWidth", "animationName",
    "transitionDuration", "height"].map((property) => [property, style[property]]));
}
"""


@pytest.fixture
def site(token: Callable[..., str]) -> Iterator[Site]:
    with serving_site(lambda: token("alice")) as site:
        yield site


@pytest.fixture
def server(site: Site, valkey: Valkey, tmp_path: Path) -> Iterator[Server]:
    env = {"JOBCAST_CORS_ORIGINS": site.url}
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        site.server_url = server.ready().url
        yield server


@pytest.fixture
def publish(valkey: Valkey) -> Iterator[Publish]:
    """Publish events of alice's jobs: ``publish(event, event)``."""
    publisher = open_publisher(valkey.url)

    def publish(*events: JobEvent) -> None:
        publisher.publish([Outgoing.of(event, Origin(owner="alice")) for event in events])

    yield publish
    publisher.close()


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Open]:
    """Open a page of the site: ``open_page(url)``. Fail if it logs an error or a warning."""
    tabs: list[Tab] = []

    def open_page(url: str, **options: Any) -> Tab:
        tab = Tab(browser.new_context(**options).new_page(), site.url)
        tabs.append(tab)
        tab.page.add_init_script(RECORD_EVENTS)
        tab.page.goto(url)
        return tab

    yield open_page
    for tab in tabs:
        tab.page.context.close()
    assert [problem for tab in tabs for problem in tab.problems] == []


def element_of(page: Page, job_id: str) -> Locator:
    return page.locator(f'jobcast-job[job-id="{job_id}"]')


def part(element: Locator, name: str) -> Locator:
    return element.locator(f'[part~="{name}"]')


def seen(page: Page, name: str) -> list[dict[str, Any]]:
    """Return the details of the element's events with this name."""
    events: list[tuple[str, dict[str, Any]]] = page.evaluate("window.seen")
    return [detail for kind, detail in events if kind == f"jobcast:{name}"]


def test_static_page_shows_a_real_job_from_start_to_end(
    site: Site, server: Server, worker: Worker, send: Callable[..., str], open_page: Open,
    tmp_path: Path,
) -> None:  # fmt: skip
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.count, 4, str(gate))
    page = open_page(site.page(site.element(job_id, 'log label="Counting"'))).page
    element = element_of(page, job_id)
    bar = page.get_by_role("progressbar", name="Counting")
    expect(bar).to_have_attribute("aria-valuenow", "50")
    expect(part(element, "message")).to_have_text("counting")
    expect(part(element, "percentage")).to_have_text("50%")
    expect(page.get_by_role("log", name="Log")).to_contain_text("step 2")
    box = part(element, "fill").bounding_box()
    whole = bar.bounding_box()
    assert box
    assert whole
    assert 0 < box["width"] < whole["width"]
    gate.touch()
    expect(element).to_have_attribute("status", "complete")
    expect(bar).to_have_attribute("aria-valuenow", "100")
    expect(part(element, "message")).to_have_text("Done")
    expect(part(element, "time")).to_contain_text("took")
    assert [end["result"] for end in seen(page, "end")] == [{"steps": 4}]
    messages = [line["message"] for line in seen(page, "log")]
    assert messages == [f"step {step}" for step in range(4)]
    assert site.token_requests == 1


def test_page_of_an_origin_that_the_server_does_not_accept_is_refused(
    site: Site, valkey: Valkey, browser: Browser, job_id: str, tmp_path: Path
) -> None:
    env = {"JOBCAST_CORS_ORIGINS": "https://app.example.com"}
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        site.server_url = server.ready().url
        page = browser.new_context().new_page()
        page.add_init_script(RECORD_EVENTS)
        page.goto(site.page(site.element(job_id, "cancellable")))
        expect(page.get_by_role("alert")).to_contain_text("JOBCAST_CORS_ORIGINS")
        [refused] = seen(page, "refused")
        assert refused["code"] == "forbidden"
        logged = f"refused a page of the origin {site.url!r}"
        server.expect(lambda: logged in server.log, logged)
        page.context.close()


def test_title_of_a_job_is_shown_and_names_its_bar(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    publish(JobStatus(job_id=job_id, status="started", title="<b>March</b>", tags=("a",)))
    page = open_page(site.page(site.element(job_id))).page
    title = part(element_of(page, job_id), "title")
    expect(title).to_have_text("<b>March</b>")
    publish(JobInfoUpdate(job_id=job_id, title="April report", tags=("b",)))
    expect(title).to_have_text("April report")
    expect(page.get_by_role("progressbar", name="April report")).to_have_count(1)
    [info] = seen(page, "info")
    assert (info["title"], info["tags"]) == ("April report", ["a", "b"])
    publish(JobComplete(job_id=job_id, result=None))
    expect(title).to_have_text("April report")
    assert violations(page) == []


def test_failed_job_shows_its_message(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    publish(
        JobStatus(job_id=job_id, status="started"),
        JobError(job_id=job_id, error="OSError", message="the disk is full", reason="failure"),
    )
    page = open_page(site.page(site.element(job_id))).page
    expect(page.get_by_role("alert")).to_have_text("the disk is full")
    expect(element_of(page, job_id)).to_have_attribute("status", "error")
    wait_for(lambda: [end["reason"] for end in seen(page, "end")] == ["failure"], "end event")


def test_htmx_swaps_in_a_job_and_then_its_result(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    site.add("/htmx.js", HTMX.read_text(), "text/javascript")
    site.add("/result", "<p id='result'>3 rows</p>")
    swap = 'hx-get="/result" hx-trigger="jobcast:end" hx-swap="outerHTML"'
    site.add("/start", site.element(job_id, swap))
    publish(JobStatus(job_id=job_id, status="started"))
    button = '<button hx-post="/start" hx-target="#jobs">Start</button><div id="jobs"></div>'
    url = site.page(button, scripts=f'{site.script}<script src="/htmx.js" defer></script>')
    page = open_page(url).page
    page.get_by_role("button", name="Start").click()
    expect(element_of(page, job_id)).to_have_attribute("status", "started")
    publish(JobComplete(job_id=job_id, result={"rows": 3}))
    expect(page.locator("#result")).to_have_text("3 rows")
    expect(element_of(page, job_id)).to_have_count(0)


def test_element_resumes_after_a_restart_of_the_server(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    publish(JobStatus(job_id=job_id, status="started"), log(job_id, "before"))
    tab = open_page(site.page(site.element(job_id, "log")))
    tab.allow_message(
        "ERR_CONNECTION_RE(FUSED|SET)|ERR_INCOMPLETE_CHUNKED|ERR_EMPTY_RESPONSE|status of 503"
    )
    element = element_of(tab.page, job_id)
    expect(part(element, "line")).to_have_text(["before"])
    server.stop()
    expect(part(element, "message")).to_have_text("Reconnecting…")
    publish(log(job_id, "during"))
    server.start()
    server.ready()
    expect(part(element, "line")).to_have_text(["before", "during"])
    publish(log(job_id, "after"), JobComplete(job_id=job_id, result=None))
    expect(element).to_have_attribute("status", "complete")
    messages = [line["message"] for line in seen(tab.page, "log")]
    assert messages == ["before", "during", "after"]


def test_token_is_replaced_before_it_expires(
    site: Site, server: Server, publish: Publish, open_page: Open, token: Callable[..., str],
    job_id: str,
) -> None:  # fmt: skip
    site.issue = lambda: token("alice", ttl=SHORT_LIVED)
    publish(JobStatus(job_id=job_id, status="started"))
    page = open_page(site.page(site.element(job_id))).page
    wait_for(lambda: site.token_requests >= 3, "third token")
    publish(log(job_id, "line"), JobComplete(job_id=job_id, result=None))
    expect(element_of(page, job_id)).to_have_attribute("status", "complete")
    assert len(seen(page, "log")) == len(seen(page, "end")) == 1
    assert seen(page, "refused") == []


def test_page_of_a_signed_out_user_says_so(
    site: Site, server: Server, open_page: Open, job_id: str
) -> None:
    site.issue = lambda: None
    url = site.page(site.element(job_id))
    tab = open_page("about:blank")
    tab.allow_message("status of 401")
    tab.page.goto(url)
    expect(tab.page.get_by_role("alert")).to_have_text("Sign in to see this job.")
    expect(element_of(tab.page, job_id)).to_have_attribute("status", "refused")


def test_job_of_another_user_is_refused(
    site: Site, server: Server, publish: Publish, open_page: Open, token: Callable[..., str],
    job_id: str,
) -> None:  # fmt: skip
    publish(JobStatus(job_id=job_id, status="started"))
    site.issue = lambda: token("eve")
    url = site.page(site.element(job_id))
    tab = open_page("about:blank")
    tab.allow_message("status of 404")
    tab.page.goto(url)
    expect(tab.page.get_by_role("alert")).to_contain_text("does not exist")
    assert [refusal["code"] for refusal in seen(tab.page, "refused")] == ["job_not_found"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_button_cancels_the_job_after_a_question(
    site: Site, server: Server, publish: Publish, open_page: Open, tmp_path: Path,
    scheme: Literal["light", "dark"],
) -> None:  # fmt: skip
    job_id = new_id()
    publish(
        JobStatus(job_id=job_id, status="queued", title="March"),
        JobStatus(job_id=job_id, status="started", attempt=1),
        JobProgress(job_id=job_id, percentage=40, message="reading"),
    )
    url = site.page(site.element(job_id, "cancellable"))
    page = open_page(url, color_scheme=scheme, viewport={"width": 390, "height": 300}).page
    element = element_of(page, job_id)
    part(element, "cancel-button").click()
    expect(part(element, "cancel-no")).to_be_focused()
    page.screenshot(path=tmp_path / f"element-{scheme}.png")
    page.keyboard.press("Escape")
    expect(part(element, "cancel-button")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    expect(part(element, "cancel-yes")).to_be_focused()
    page.keyboard.press("Enter")
    expect(part(element, "message")).to_have_text("Cancelling…")
    expect(part(element, "cancel")).to_be_hidden()
    assert [event["by"] for event in seen(page, "status") if "by" in event] == ["alice"]
    publish(JobError(job_id=job_id, error="JobCancelled", message="", reason="cancelled"))
    expect(part(element, "message")).to_have_text("Cancelled")
    expect(part(element, "error")).to_be_hidden()
    page.screenshot(path=tmp_path / f"element-cancelled-{scheme}.png")


def test_elements_of_a_page_share_one_stream(
    site: Site, server: Server, publish: Publish, open_page: Open
) -> None:
    """A browser opens at most six HTTP/1.1 connections to a host."""
    job_ids = [new_id() for _ in range(12)]
    for job_id in job_ids:
        publish(JobStatus(job_id=job_id, status="started"))
    page = open_page(site.page("".join(map(site.element, job_ids)))).page
    for job_id in job_ids:
        expect(element_of(page, job_id)).to_have_attribute("status", "started")
        publish(JobComplete(job_id=job_id, result=None))
        expect(element_of(page, job_id)).to_have_attribute("status", "complete")
    wait_for(lambda: "GET /events?" in server.log, "end of the stream")
    assert server.log.count("GET /events?") == 1


def test_cookie_of_the_application_authenticates_the_element(
    site: Site, valkey: Valkey, publish: Publish, open_page: Open, tmp_path: Path, job_id: str
) -> None:
    env = {
        "JOBCAST_AUTHENTICATE": "tests.http_application:user_of",
        "JOBCAST_CORS_ORIGINS": site.url,
    }
    publish(JobStatus(job_id=job_id, status="started"))
    with running(Server(tmp_path / "server.log", valkey.url, env)) as server:
        site.server_url = server.ready().url
        element = f'<jobcast-job job-id="{job_id}" base-url="{server.url}"></jobcast-job>'
        tab = open_page("about:blank")
        tab.page.context.add_cookies([{"name": "session", "value": "alice", "url": server.url}])
        tab.page.goto(site.page(element))
        expect(element_of(tab.page, job_id)).to_have_attribute("status", "started")
        tab.page.close()


def test_token_endpoint_recognises_the_user_by_a_session_cookie(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    site.session = "alice"
    publish(JobStatus(job_id=job_id, status="started"))
    tab = open_page("about:blank")
    tab.page.context.add_cookies([{"name": "session", "value": "alice", "url": site.url}])
    tab.page.goto(site.page(site.element(job_id)))
    expect(element_of(tab.page, job_id)).to_have_attribute("status", "started")
    # The session has ended: the next token is refused.
    tab.allow_message("status of 401")
    tab.page.context.clear_cookies()
    tab.page.reload()
    expect(tab.page.get_by_role("alert")).to_have_text("Sign in to see this job.")


def test_expired_token_is_replaced_and_a_second_one_is_shown(
    site: Site, server: Server, publish: Publish, open_page: Open, token: Callable[..., str],
    job_id: str,
) -> None:  # fmt: skip
    tokens = [token("alice", ttl=-60), token("alice")]
    site.issue = lambda: tokens.pop(0)
    publish(JobStatus(job_id=job_id, status="started"))
    tab = open_page("about:blank")
    tab.allow_message("status of 401")
    tab.page.goto(site.page(site.element(job_id)))
    expect(element_of(tab.page, job_id)).to_have_attribute("status", "started")
    tokens += [token("alice", ttl=-60), token("alice", ttl=-60)]
    tab.page.reload()
    expect(element_of(tab.page, job_id)).to_have_attribute("status", "refused")
    expect(tab.page.get_by_role("alert")).to_contain_text("expired")


def test_elements_with_tokens_of_their_own_leave_connections_to_the_page(
    site: Site, server: Server, publish: Publish, open_page: Open, token: Callable[..., str]
) -> None:
    job_ids = [new_id() for _ in range(10)]
    publish(*[JobStatus(job_id=job_id, status="started") for job_id in job_ids])
    elements = [
        f'<jobcast-job job-id="{job_id}" base-url="{server.url}"'
        f' token="{token("alice", jobs=[job_id])}"></jobcast-job>'
        for job_id in job_ids
    ]
    page = open_page(site.page("".join(elements))).page
    for job_id in job_ids:
        expect(element_of(page, job_id)).to_have_attribute("status", "started")
    assert page.evaluate(f"fetch('{server.url}/healthz', {{ mode: 'no-cors' }}).then(() => true)")
    publish(*[JobComplete(job_id=job_id, result=None) for job_id in job_ids])
    for job_id in job_ids:
        expect(element_of(page, job_id)).to_have_attribute("status", "complete")
    assert len(seen(page, "end")) == len(job_ids)


def test_texts_of_a_job_are_never_interpreted(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    html = "<img src=x onerror=alert(1)><b>bold</b><script>alert(1)</script>"
    publish(
        JobStatus(job_id=job_id, status="started"),
        JobProgress(job_id=job_id, percentage=40, message=html),
        log(job_id, html),
    )
    page = open_page(site.page(site.element(job_id, "log"))).page
    element = element_of(page, job_id)
    expect(part(element, "message")).to_have_text(html)
    expect(part(element, "line")).to_have_text(html)
    publish(JobError(job_id=job_id, error="E", message=html, reason="failure"))
    expect(page.get_by_role("alert")).to_have_text(html)
    expect(element.locator("img, b, script")).to_have_count(0)


def test_element_of_the_npm_package_is_a_module(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    modules = [path for path in NPM.rglob("*.js") if "cjs" not in path.parts]
    for path in modules:
        site.add(f"/npm/{path.relative_to(NPM).as_posix()}", path.read_text(), "text/javascript")
    publish(JobStatus(job_id=job_id, status="started"))
    script = '<script src="/npm/element.js" type="module"></script>'
    url = site.page(site.element(job_id), scripts=script)
    expect(element_of(open_page(url).page, job_id)).to_have_attribute("status", "started")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_element_is_accessible_in_each_state(
    site: Site, server: Server, publish: Publish, open_page: Open, scheme: str
) -> None:
    started, failed, done, unknown = (new_id() for _ in range(4))
    publish(
        JobStatus(job_id=started, status="started"),
        JobProgress(job_id=started, percentage=40, message="reading", eta=90),
        JobLog(job_id=started, level="info", message="a line"),
        JobLog(job_id=started, level="error", message="a problem"),
        JobStatus(job_id=unknown, status="started"),
        JobProgress(job_id=unknown, percentage=None, message="counting"),
        JobStatus(job_id=failed, status="started"),
        JobError(job_id=failed, error="OSError", message="the disk is full", reason="failure"),
        JobStatus(job_id=done, status="started"),
        JobComplete(job_id=done, result=None),
    )
    shown = [site.element(job_id, "log") for job_id in (started, failed, done, unknown)]
    page = open_page(site.page("".join(shown)), color_scheme=scheme).page
    # Without a background of the page's own, axe compares with white in a dark page, too.
    page.evaluate("document.documentElement.style.background = 'Canvas'")
    expect(part(element_of(page, started), "percentage")).to_have_text("40%")
    expect(part(element_of(page, started), "line")).to_have_count(2)
    expect(part(element_of(page, unknown), "message")).to_have_text("counting")
    expect(element_of(page, failed)).to_have_attribute("status", "error")
    expect(element_of(page, done)).to_have_attribute("status", "complete")
    assert violations(page) == []


def test_element_follows_the_user_s_settings_and_the_page_s_style(
    site: Site, server: Server, publish: Publish, open_page: Open, job_id: str
) -> None:
    publish(
        JobStatus(job_id=job_id, status="started"),
        JobProgress(job_id=job_id, percentage=None, message="counting"),
    )
    url = site.page(site.element(job_id))
    plain = style(open_page(url).page, job_id, "fill")
    assert plain["animationName"] == "move"
    calm = style(open_page(url, reduced_motion="reduce").page, job_id, "fill")
    assert (calm["animationName"], calm["transitionDuration"]) == ("none", "0s")
    assert style(open_page(url, forced_colors="active").page, job_id, "bar")[
        "borderTopWidth"
    ] == "1px"  # fmt: skip
    themed = open_page(url).page
    element_of(themed, job_id).evaluate(
        "(element) => { element.style.setProperty('--jobcast-accent', 'rgb(1, 2, 3)');"
        " element.style.setProperty('--jobcast-height', '20px'); }"
    )
    assert style(themed, job_id, "fill")["backgroundColor"] == "rgb(1, 2, 3)"
    assert style(themed, job_id, "bar")["height"] == "20px"


def style(page: Page, job_id: str, name: str) -> dict[str, str]:
    """Return the computed style of a part."""
    element = element_of(page, job_id)
    expect(part(element, "message")).to_have_text("counting")
    computed: dict[str, str] = element.evaluate(STYLE, name)
    return computed


def log(job_id: str, message: str) -> JobLog:
    return JobLog(job_id=job_id, level="info", message=message)
