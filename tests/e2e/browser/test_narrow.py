"""Where there is room for the list or for a job: a phone, and a desktop that is zoomed."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from jobcast import open_job
from jobcast.publishing.runtime import get_runtime
from tests import jobs
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_accessibility import LOOKS, is_clean
from tests.support import Worker, new_id

NewTab = Callable[..., Tab]
Send = Callable[..., str]

NARROW = LOOKS["phone"]
UNBROKEN = "pneumono" * 38


@pytest.fixture(params=["light", "phone"])
def look(request: pytest.FixtureRequest) -> dict[str, Any]:
    return LOOKS[request.param]


@pytest.fixture
def ada() -> str:
    return new_id("ada")


def listed(tab: Tab, *job_ids: str) -> None:
    """Has them in the list, the last one on top."""
    for job_id in job_ids:
        tab.go(job_id)
        tab.page.get_by_role("button", name="Keep in the list").click()


def focused(page: Page) -> str:
    name: str = page.evaluate(
        "(({tagName, textContent, ariaLabel}) => `${tagName} ${ariaLabel ?? textContent}`)"
        "(document.activeElement)"
    )
    return name


def test_who_comes_back_to_the_list_is_at_the_job_they_come_from(
    crew: Worker, new_tab: NewTab, send: Send, ada: str, look: dict[str, Any]
) -> None:
    tab = new_tab(ada, **look)
    job_ids = [send(crew, jobs.count, 1, owner=ada) for _ in range(3)]
    listed(tab, *job_ids)
    tab.open("/#/")
    link = tab.row(job_ids[1]).get_by_role("link")
    link.press("Enter")
    expect(tab.job(job_ids[1]).get_by_role("heading", level=1)).to_be_focused()
    tab.page.go_back()
    expect(link).to_be_focused()
    link.press("Enter")
    tab.page.get_by_role("button", name="Remove from the list").press("Enter")
    expect(tab.job(job_ids[1])).to_have_count(0)
    assert focused(tab.page).startswith("H")


def test_keys_open_the_next_job_where_the_list_is_not_beside_it(
    crew: Worker, new_tab: NewTab, send: Send, ada: str
) -> None:
    tab = new_tab(ada, **NARROW)
    first, second = (send(crew, jobs.count, 1, owner=ada) for _ in range(2))
    listed(tab, first, second)
    tab.page.keyboard.press("j")
    expect(tab.job(first).get_by_role("heading", level=1)).to_be_focused()
    tab.page.keyboard.press("j")  # it is the last one
    tab.page.keyboard.press("k")
    expect(tab.job(second).get_by_role("heading", level=1)).to_be_focused()
    tab.open("/#/start")
    tab.page.get_by_label("File for Import people").focus()
    tab.page.keyboard.press("k")
    expect(tab.job(first)).to_be_visible()


def test_the_focus_goes_as_one_reads(
    crew: Worker, new_tab: NewTab, send: Send, ada: str, look: dict[str, Any]
) -> None:
    tab = new_tab(ada, **look)
    job_id = send(crew, jobs.count, 1, owner=ada)
    listed(tab, job_id)
    tab.has_status(job_id, "complete")
    controls = tab.page.locator(".job-top").locator("a:visible, button")
    places = [control.bounding_box() for control in controls.all()]
    middles = [place["y"] + place["height"] / 2 for place in places if place]
    assert len(middles) == (3 if look is NARROW else 2)
    assert all(below - above > -10 for above, below in pairwise(middles))


def test_escape_clears_the_search_and_leads_out_of_it_into_the_log(
    crew: Worker, new_tab: NewTab, send: Send, ada: str, look: dict[str, Any]
) -> None:
    tab = new_tab(ada, **look)
    job_id = send(crew, jobs.count, 3, owner=ada)
    tab.go(job_id)
    tab.has_status(job_id, "complete")
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


def test_a_long_message_leaves_room_for_the_rest(
    sender: None, new_tab: NewTab, ada: str, look: dict[str, Any]
) -> None:
    tab = new_tab(ada, **look)
    job_id = new_id()
    for message in (UNBROKEN, UNBROKEN * 26):
        with open_job(job_id, owner=ada) as job:
            here = get_runtime()
            assert here
            job.progress(25, "briefly")
            here.publisher.flush()  # a page that is there before its job is told that there is none
            tab.go(job_id)
            heading = tab.answer.get_by_role("heading")
            expect(heading).to_have_text(re.compile("Running: briefly, 25%"))
            job.progress(50, message)
            expect(heading).to_contain_text("Running, 50%")
            expect(heading).to_have_accessible_name(re.compile(f"{UNBROKEN}"))
            expect(tab.bar).to_be_in_viewport()
            expect(tab.page.get_by_text("Running for")).to_be_in_viewport()
            more = tab.answer.get_by_role("button", name="Show the whole text")
            assert lines_of(heading) <= 3.1
            if more.count() == 0:
                assert heading.evaluate("(it) => it.scrollHeight <= it.clientHeight + 1")
            else:
                is_clean(tab.page)
                more.press("Enter")
                assert heading.evaluate("(it) => it.scrollHeight <= it.clientHeight + 1")
                is_clean(tab.page)
                tab.answer.get_by_role("button", name="Show less").press("Enter")
                expect(more).to_be_focused()
        tab.has_status(job_id, "complete")
        job_id = new_id()


def test_why_a_job_failed_may_be_long(
    crew: Worker, new_tab: NewTab, send: Send, ada: str, look: dict[str, Any]
) -> None:
    tab = new_tab(ada, **look)
    job_id = send(crew, jobs.fail, UNBROKEN * 26, owner=ada)
    tab.go(job_id)
    tab.has_status(job_id, "error")
    expect(tab.page.get_by_text("Took", exact=True)).to_be_in_viewport()
    why = tab.answer.get_by_text(UNBROKEN[:100])
    before = lines_of(why)
    tab.answer.get_by_role("button", name="Show the whole text").click()
    assert lines_of(why) > 3 * before
    is_clean(tab.page)
