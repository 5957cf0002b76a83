"""Jobs that a user cancels in the console, with the mouse and with keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.tab import Tab
from tests.support import Server, Worker, answers, running

Send = Callable[..., str]
Token = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    with running(Server(log, valkey.url, {"JOBCAST_CONSOLE": "/console"})) as server:
        server.expect(lambda: answers(f"{server.url}/readyz"), "response of /readyz")
        yield server


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Worker]:
    log = tmp_path_factory.mktemp("worker") / "log"
    with running(Worker(log, valkey.url, valkey.url, "-c", "2")) as worker:
        yield worker.ready()


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[Callable[..., Tab]]:
    """Open the console with a token. Fail if a tab logs an error or a warning."""
    tabs: list[Tab] = []

    def open_tab(token: str, **options: object) -> Tab:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        tab = Tab(context.new_page(), f"{server.url}/console")
        tabs.append(tab)
        tab.allow_message("status of 401")
        tab.open()
        tab.page.get_by_label("Token").fill(token)
        tab.page.get_by_label("Token").press("Enter")
        expect(tab.page.get_by_role("banner")).to_be_visible()
        return tab

    yield open_tab
    for tab in tabs:
        tab.page.context.close()
        assert tab.problems == []


def dialog(tab: Tab) -> Locator:
    return tab.page.get_by_role("dialog", name="Cancel this job?")


def test_job_is_cancelled_from_its_page(
    open_tab: Callable[..., Tab], worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.tick, str(gate), 0.1, owner="ada")
    tab = open_tab(token("ada"))
    tab.go(job_id)
    tab.expect_status(job_id, "started")
    button = tab.page.get_by_role("main").get_by_role("button", name="Cancel")
    button.click()
    expect(dialog(tab)).to_contain_text("Tick")
    expect(dialog(tab).get_by_role("button", name="Keep it running")).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(dialog(tab)).to_have_count(0)
    expect(button).to_be_focused()
    button.click()
    dialog(tab).get_by_label("Reason").fill("wrong file")
    dialog(tab).get_by_role("button", name="Cancel the job").click()
    expect(dialog(tab)).to_have_count(0)
    expect(button).to_have_count(0)
    expect(tab.page.get_by_role("heading", level=1)).to_be_focused()
    tab.expect_status(job_id, "cancelled")
    expect(tab.status_panel).to_contain_text("Cancelled by ada after")
    expect(tab.status_panel).to_contain_text("Reason: wrong file")
    expect(tab.page.locator(".error-text")).to_have_count(0)
    expect(tab.page.locator(".timeline")).to_contain_text("Cancellation requested by ada")


def test_job_is_cancelled_from_the_list_with_keys(
    open_tab: Callable[..., Tab], worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.tick, str(gate), 0.1, owner="bea")
    tab = open_tab(token("bea"))
    row = tab.page.locator(f'[data-job-id="{job_id}"]')
    link = row.get_by_role("link")
    expect(row).to_have_attribute("data-status", "started")
    tab.page.keyboard.press("j")
    expect(link).to_be_focused()
    tab.page.keyboard.press("Tab")
    expect(row.get_by_role("button", name="Cancel")).to_be_focused()
    tab.page.keyboard.press("Enter")
    expect(dialog(tab)).to_contain_text(job_id)
    tab.page.keyboard.press("Enter")
    expect(dialog(tab)).to_have_count(0)
    expect(row).to_have_attribute("data-status", "started")
    link.focus()
    tab.page.keyboard.press("c")
    expect(dialog(tab)).to_be_visible()
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Enter")
    expect(dialog(tab)).to_have_count(0)
    expect(link).to_be_focused()
    expect(row).to_have_attribute("data-status", "cancelled")
    expect(row).to_contain_text("Cancelled")
    expect(tab.page.get_by_role("button", name="Cancelled 1")).to_be_visible()


def test_progress_of_a_cancelled_job_is_drawn_in_the_neutral_colour(
    open_tab: Callable[..., Tab], worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="eve")
    tab = open_tab(token("eve"))
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    curve = tab.page.locator(".plot .curve .line")
    expect(curve).to_have_css("stroke", colour(tab, "--active-fill"))
    tab.page.get_by_role("main").get_by_role("button", name="Cancel").click()
    dialog(tab).get_by_role("button", name="Cancel the job").click()
    tab.expect_status(job_id, "cancelling")
    gate.touch()
    tab.expect_status(job_id, "cancelled")
    expect(curve).to_have_css("stroke", colour(tab, "--quiet-fill"))
    expect(tab.bar.locator(".bar-fill")).to_have_css(
        "background-color", colour(tab, "--quiet-fill")
    )


def colour(tab: Tab, name: str) -> str:
    """Return the computed colour of a custom property."""
    computed: str = tab.page.evaluate(
        """(name) => {
            const probe = document.body.appendChild(document.createElement("i"));
            probe.style.color = `var(${name})`;
            const { color } = getComputedStyle(probe);
            probe.remove();
            return color;
        }""",
        name,
    )
    return computed


def test_refused_request_is_explained(
    open_tab: Callable[..., Tab], worker: Worker, send: Send, token: Token, gate: Path
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="cyd")
    tab = open_tab(token("ops", jobs=[job_id]))
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    tab.page.get_by_role("main").get_by_role("button", name="Cancel").click()
    dialog(tab).get_by_role("button", name="Cancel the job").click()
    expect(dialog(tab).get_by_role("alert")).to_have_text("You may not cancel this job.")
    dialog(tab).get_by_role("button", name="Keep it running").click()
    gate.touch()
    tab.expect_status(job_id, "complete")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_dialog_fits_every_screen(
    open_tab: Callable[..., Tab],
    worker: Worker,
    send: Send,
    token: Token,
    gate: Path,
    tmp_path: Path,
    scheme: str,
    width: int,
) -> None:
    job_id = send(worker, jobs.count, 10, str(gate), owner="dan")
    tab = open_tab(token("dan"), color_scheme=scheme, viewport={"width": width, "height": 800})
    tab.go(job_id)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    tab.page.screenshot(path=tmp_path / f"page-{scheme}-{width}.png")
    tab.page.get_by_role("main").get_by_role("button", name="Cancel").click()
    box = dialog(tab).bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    tab.page.screenshot(path=tmp_path / f"dialog-{scheme}-{width}.png")
    dialog(tab).get_by_role("button", name="Cancel the job").click()
    tab.expect_status(job_id, "cancelling")
    expect(tab.status_panel).to_contain_text("Cancelling, requested by dan")
    tab.page.screenshot(path=tmp_path / f"cancelling-{scheme}-{width}.png")
    gate.touch()
