"""The console has no accessibility violations that axe detects, and works by keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests import jobs
from tests.e2e.browser.tab import Tab
from tests.support import ROOT, Worker, new_id

AXE = (ROOT / "client/node_modules/axe-core/axe.min.js").read_text()

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 360, "height": 740}},
    "phone-dark": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
}


@pytest.fixture(params=LOOKS)
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**LOOKS[request.param], "reduced_motion": "reduce"}


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)  # through the debugger, to which the page's policy does not apply
    found: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}"
        for each in found
    ]


def assert_clean(page: Page) -> None:
    """Check that the page has no violations and is no wider than the screen."""
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_each_view_is_accessible(
    sample_worker: Worker, new_tab: Callable[..., Tab], send: Callable[..., str], gate: Path,
    look: dict[str, Any],
) -> None:  # fmt: skip
    user = new_id("user")
    tab = new_tab(user, **look)
    page = tab.page
    assert_clean(page)  # no jobs yet: the page shows the sample tasks
    done = send(sample_worker, jobs.count, 3, owner=user)
    failed = send(sample_worker, jobs.fail, "the disk is full", owner=user)
    running = send(sample_worker, jobs.count, 10, str(gate), owner=user)
    retrying = send(sample_worker, jobs.unsteady, str(gate.with_name("other")), owner=user)
    for job_id, status in (
        (done, "complete"), (failed, "error"), (retrying, "retrying"),
        (new_id("nowhere"), "refused"), (running, "started"),
    ):  # fmt: skip
        tab.go(job_id)
        tab.expect_status(job_id, status)
        assert_clean(page)
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    tab.open("/#/")
    page.get_by_role("button", name="Filters").click()
    expect(tab.row(failed)).to_be_visible()
    assert_clean(page)
    gate.touch()
    tab.go(running)
    tab.expect_status(running, "complete")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert_clean(page)


def test_a_job_can_be_found_and_read_by_keyboard(
    sample_worker: Worker, new_tab: Callable[..., Tab], send: Callable[..., str]
) -> None:
    user = new_id("user")
    first, second = (send(sample_worker, jobs.count, 3, owner=user) for _ in range(2))
    tab = new_tab(user)
    page = tab.page
    expect(tab.row(first)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type(first)
    expect(tab.row(second)).to_have_count(0)
    page.keyboard.press("Enter")
    tab.expect_status(first, "complete")
    # Screen readers continue at the job's name.
    expect(tab.job(first).get_by_role("heading", level=1)).to_be_focused()
    page.get_by_label("Search the jobs").press("Escape")
    tab.row(second).get_by_role("link").focus()
    page.keyboard.press("j")
    focused = page.evaluate("document.activeElement.closest('[data-job-id]').dataset.jobId")
    assert focused == first
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(tab.job(second)).to_be_visible()
    tab.expect_status(second, "complete")
    page.keyboard.press("/")
    expect(page.get_by_label("Search the log")).to_be_focused()
    page.keyboard.type("step 2")
    page.keyboard.press("Enter")
    expect(tab.log.locator("[data-current]")).to_contain_text("step 2")
    page.keyboard.press("Escape")
    expect(page.get_by_label("Search the log")).to_have_value("")


def test_disabled_shortcuts_stay_disabled_after_a_reload_and_in_other_tabs(
    sample_worker: Worker, new_tab: Callable[..., Tab], send: Callable[..., str]
) -> None:
    user = new_id("user")
    tab = new_tab(user)
    other = new_tab(user, "/#/start", beside=tab)
    page = tab.page
    first, second = (send(sample_worker, jobs.count, 3, owner=user) for _ in range(2))
    tab.go(second)
    expect(tab.row(first)).to_be_visible()
    page.keyboard.press("j")
    expect(tab.row(first).get_by_role("link")).to_be_focused()
    keys = page.get_by_role("checkbox", name="Shortcut keys")
    expect(keys).to_have_accessible_description("j k next and previous job, / search, c cancel")
    keys.uncheck()
    expect(other.page.get_by_role("checkbox", name="Shortcut keys")).not_to_be_checked()
    page.reload()
    tab.expect_status(second, "complete")
    expect(keys).not_to_be_checked()
    assert_clean(page)
    for key in ("j", "k", "/"):
        page.keyboard.press(key)
    expect(page.locator(":focus")).to_have_count(0)
    keys.check()
    expect(other.page.get_by_role("checkbox", name="Shortcut keys")).to_be_checked()
    page.keyboard.press("/")
    expect(page.get_by_label("Search the log")).to_be_focused()
