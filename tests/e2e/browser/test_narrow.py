"""The console on narrow screens: phones and zoomed desktops."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from jobcast import open_job
from jobcast.publishing.runtime import get_runtime
from tests import jobs
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_accessibility import LOOKS, assert_clean
from tests.support import Worker, new_id

NewTab = Callable[..., Tab]
Send = Callable[..., str]

NARROW = LOOKS["phone"]
UNBROKEN = "pneumono" * 38


@pytest.fixture(params=["light", "phone"])
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    return LOOKS[request.param]


@pytest.fixture
def user() -> str:
    return new_id("user")


def test_returning_to_the_list_focuses_the_link_of_the_job(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, look: dict[str, Any]
) -> None:
    job_ids = [send(sample_worker, jobs.count, 1, owner=user) for _ in range(3)]
    tab = new_tab(user, **look)
    link = tab.row(job_ids[1]).get_by_role("link")
    link.press("Enter")
    expect(tab.job(job_ids[1]).get_by_role("heading", level=1)).to_be_focused()
    tab.page.go_back()
    expect(link).to_be_focused()
    link.press("Enter")
    expect(tab.job(job_ids[1]).get_by_role("heading", level=1)).to_be_focused()
    close = "All jobs" if look is NARROW else "Close the job"
    tab.page.get_by_role("article").get_by_role("link", name=close).press("Enter")
    expect(tab.job(job_ids[1])).to_have_count(0)
    expect(link).to_be_focused()


def test_shortcuts_open_the_next_job_if_the_list_is_hidden(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str
) -> None:
    first, second = (send(sample_worker, jobs.count, 1, owner=user) for _ in range(2))
    tab = new_tab(user, **NARROW)
    tab.row(second).get_by_role("link").click()
    expect(tab.job(second)).to_be_visible()
    tab.page.keyboard.press("j")
    expect(tab.job(first).get_by_role("heading", level=1)).to_be_focused()
    tab.page.keyboard.press("j")  # the first job is the last row, so nothing happens
    tab.page.keyboard.press("k")
    expect(tab.job(second).get_by_role("heading", level=1)).to_be_focused()


def test_the_focus_order_follows_the_reading_order(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, look: dict[str, Any]
) -> None:
    tab = new_tab(user, **look)
    job_id = send(sample_worker, jobs.count, 1, owner=user)
    tab.go(job_id)
    tab.expect_status(job_id, "complete")
    controls = tab.page.locator(".job-top").locator("a:visible, button:visible")
    places = [control.bounding_box() for control in controls.all()]
    middles = [place["y"] + place["height"] / 2 for place in places if place]
    assert len(middles) == 2
    assert all(below - above > -10 for above, below in pairwise(middles))


def test_escape_clears_the_search_and_then_focuses_the_log(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, look: dict[str, Any]
) -> None:
    tab = new_tab(user, **look)
    job_id = send(sample_worker, jobs.count, 3, owner=user)
    tab.go(job_id)
    tab.expect_status(job_id, "complete")
    search = tab.page.get_by_label("Search the log")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("step 2")
    tab.page.keyboard.press("Escape")
    expect(search).to_have_value("")
    expect(search).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(tab.log).to_be_focused()


def lines_of(text: Locator) -> float:
    lines: float = text.evaluate(
        "(it) => it.clientHeight / parseFloat(getComputedStyle(it).lineHeight)"
    )
    return lines


def test_a_long_message_leaves_room_for_the_job_stats(
    sender: None, new_tab: NewTab, user: str, look: dict[str, Any]
) -> None:
    tab = new_tab(user, **look)
    job_id = new_id()
    for message in (UNBROKEN, UNBROKEN * 26):
        with open_job(job_id, owner=user) as job:
            runtime = get_runtime()
            assert runtime
            job.progress(25, "briefly")
            runtime.publisher.flush()  # the page must not open before the job exists
            tab.go(job_id)
            heading = tab.status_panel.get_by_role("heading")
            expect(heading).to_have_text(re.compile("Running: briefly, 25%"))
            job.progress(50, message)
            expect(heading).to_contain_text("Running, 50%")
            expect(heading).to_have_accessible_name(re.compile(f"{UNBROKEN}"))
            expect(tab.bar).to_be_in_viewport()
            expect(tab.page.get_by_text("Running for")).to_be_in_viewport()
            more = tab.status_panel.get_by_role("button", name="Show the whole text")
            assert lines_of(heading) <= 3.1
            if more.count() == 0:
                assert heading.evaluate("(it) => it.scrollHeight <= it.clientHeight + 1")
            else:
                assert_clean(tab.page)
                more.press("Enter")
                assert heading.evaluate("(it) => it.scrollHeight <= it.clientHeight + 1")
                assert_clean(tab.page)
                tab.status_panel.get_by_role("button", name="Show less").press("Enter")
                expect(more).to_be_focused()
        tab.expect_status(job_id, "complete")
        job_id = new_id()


def test_a_long_error_message_can_be_expanded(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, look: dict[str, Any]
) -> None:
    tab = new_tab(user, **look)
    job_id = send(sample_worker, jobs.fail, UNBROKEN * 26, owner=user)
    tab.go(job_id)
    tab.expect_status(job_id, "error")
    expect(tab.page.get_by_text("Took", exact=True)).to_be_in_viewport()
    why = tab.status_panel.get_by_text(UNBROKEN[:100])
    before = lines_of(why)
    tab.status_panel.get_by_role("button", name="Show the whole text").click()
    assert lines_of(why) > 3 * before
    assert_clean(tab.page)
