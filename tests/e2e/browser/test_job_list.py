"""The console's list of jobs in a browser: filters, shared links, stuck jobs, many jobs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_accessibility import LOOKS, assert_clean
from tests.support import running
from tests.support.published_jobs import PublishedJobs

Token = Callable[..., str]
OpenTab = Callable[..., Tab]
Event = tuple[str, str, dict[str, Any]]

MANY = 3000


def queued(job_id: str, owner: str = "ada", *, minutes: float = 0, **info: Any) -> Event:
    sent = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
    fields = {"job_id": job_id, "status": "queued", "created_at": sent, "timestamp": sent, **info}
    return "job_status", owner, fields


def started(job_id: str, owner: str = "ada", **info: Any) -> Event:
    fields = {"job_id": job_id, "status": "started", "task": "shop.export", "attempt": 1, **info}
    return "job_status", owner, fields


def failed(job_id: str, owner: str = "ada") -> Event:
    fields = {"job_id": job_id, "error": "KeyError", "message": "'x'", "reason": "failure"}
    return "job_error", owner, fields


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedJobs]:
    folder = tmp_path_factory.mktemp("published")
    published = PublishedJobs(folder, JOBCAST_FEED_SIZE=str(MANY))
    with running(published.server):
        published.server.ready()
        published.publish(
            queued("waiting", minutes=10, title="Waiting report"),
            started("export", title="March export", tags=["project:7"], worker="w1@host"),
            started("part", "bob", parent="export", task="shop.part"),
            started("broken", task="shop.import"),
            failed("broken"),
            started("foreign", "bob", title="Report of Bob"),
        )
        yield published


@pytest.fixture
def open_tab(browser: Browser, published: PublishedJobs, token: Token) -> Iterator[OpenTab]:
    """Open the console with a token of a user. Fail if it logs an error or a warning."""
    tabs: list[Tab] = []

    def open_tab(path: str = "/", *, look: str = "light", **claims: Any) -> Tab:
        tab = Tab(browser.new_context(**LOOKS[look]).new_page(), published.url)
        tabs.append(tab)
        secret = token("ada", **claims)
        tab.page.add_init_script(f"sessionStorage.setItem('jobcast.token', '{secret}')")
        tab.open(path)
        tab.expect_connection()
        return tab

    yield open_tab
    for tab in tabs:
        tab.page.context.close()
    assert [problem for tab in tabs for problem in tab.problems] == []


def test_user_without_a_right_to_all_jobs_sees_their_own(open_tab: OpenTab) -> None:
    tab = open_tab()
    expect(tab.row("export")).to_be_visible()
    expect(tab.row("foreign")).to_have_count(0)
    expect(tab.page.get_by_role("group", name="Whose jobs")).to_have_count(0)
    tab.open("/#/?feed=all")
    expect(tab.page.get_by_role("alert")).to_contain_text("You may not list these jobs.")
    tab.page.get_by_role("button", name="Show my jobs").click()
    expect(tab.row("export")).to_be_visible()


def test_operator_switches_between_all_jobs_and_their_own(open_tab: OpenTab) -> None:
    tab = open_tab(feeds=["*"])
    expect(tab.row("foreign")).to_contain_text("bob")
    tab.page.get_by_role("button", name="Mine").click()
    expect(tab.row("foreign")).to_have_count(0)
    tab.page.reload()
    expect(tab.row("export")).to_be_visible()
    expect(tab.row("foreign")).to_have_count(0)
    tab.page.get_by_role("button", name="All", exact=True).click()
    expect(tab.row("foreign")).to_be_visible()


def test_stuck_job_comes_first_and_shows_in_the_title(open_tab: OpenTab) -> None:
    tab = open_tab()
    first = tab.page.get_by_role("list", name="Jobs").locator("li").first
    expect(first).to_have_attribute("data-job-id", "waiting")
    expect(first).to_contain_text(re.compile(r"Waiting for a worker for \d+ min"))
    expect(tab.page).to_have_title(re.compile("^1 stuck, 1 running, 1 queued"))
    icon = tab.page.locator('link[rel="icon"]')
    expect(icon).to_have_attribute("href", re.compile(r"^data:image/svg\+xml"))


@pytest.mark.parametrize("reason", ["cancelled", "revoked"])
def test_progress_of_a_cancelled_job_is_drawn_in_the_neutral_colour(
    open_tab: OpenTab, published: PublishedJobs, reason: str
) -> None:
    job_id = f"{reason}-job"
    published.publish(started(job_id, "eve", run=1))
    tab = open_tab(f"/#/jobs/{job_id}", jobs=[job_id])
    tab.expect_status(job_id, "started")
    published.publish(("job_progress", "eve", {"job_id": job_id, "percentage": 50.0}))
    curve = tab.page.locator(".plot .curve .tip")
    expect(curve).to_have_css("fill", colour(tab, "--active-fill"))
    ending = {"job_id": job_id, "error": "Cancelled", "message": "wrong file", "reason": reason}
    published.publish(("job_error", "eve", ending))
    tab.expect_status(job_id, "cancelled")
    expect(curve).to_have_css("fill", colour(tab, "--quiet-fill"))
    bar = tab.bar.locator(".bar-fill")
    expect(bar).to_have_css("background-color", colour(tab, "--quiet-fill"))


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


def test_link_shares_the_filters_and_the_open_job(open_tab: OpenTab) -> None:
    tab = open_tab(feeds=["*"])
    tab.page.get_by_role("button", name=re.compile("^Failed")).click()
    tab.page.get_by_role("button", name="Filters").click()
    tab.page.get_by_label("Task").select_option("shop.import")
    expect(tab.row("export")).to_have_count(0)
    tab.row("broken").get_by_role("link").click()
    tab.expect_status("broken", "error")
    shared = tab.page.url.removeprefix(tab.url)
    other = open_tab(shared, feeds=["*"])
    other.expect_status("broken", "error")
    expect(other.page.get_by_label("Task")).to_have_value("shop.import")
    expect(other.page.get_by_role("list", name="Jobs").locator("li")).to_have_count(1)


def test_search_finds_a_job_by_its_words(open_tab: OpenTab) -> None:
    tab = open_tab(feeds=["*"])
    expect(tab.row("export")).to_be_visible()
    tab.page.keyboard.press("/")
    tab.page.keyboard.type("project:7 march")
    expect(tab.row("waiting")).to_have_count(0)
    tab.page.keyboard.press("Enter")
    tab.expect_status("export", "started")


def test_job_page_shows_its_description_and_related_jobs(open_tab: OpenTab) -> None:
    tab = open_tab("/#/jobs/export", feeds=["*"], jobs=["*"])
    about = tab.page.get_by_role("region", name="About")
    expect(about).to_contain_text("shop.export")
    expect(about).to_contain_text("w1@host")
    related = tab.page.get_by_role("region", name="Related jobs")
    expect(related).to_contain_text("1 job sent by this one")
    related.get_by_role("link", name="Part").click()
    tab.expect_status("part", "started")
    related.get_by_role("link", name="March export").click()
    tab.expect_status("export", "started")
    about.get_by_role("link", name="project:7").click()
    expect(tab.page.get_by_role("list", name="Jobs").locator("li")).to_have_count(1)


def test_progress_shows_in_the_list_and_in_the_title_of_a_job(
    open_tab: OpenTab, published: PublishedJobs
) -> None:
    tab = open_tab("/#/jobs/export")
    progress = {"job_id": "export", "percentage": 42.0, "message": "row 42 of 100"}
    published.publish(("job_progress", "ada", progress))
    expect(tab.row("export")).to_contain_text("42%")
    expect(tab.page).to_have_title(re.compile("^42% Running: March export"))


@pytest.mark.parametrize("look", ["light", "phone-dark"])
def test_thousands_of_jobs_are_listed_with_few_rows(
    open_tab: OpenTab, published: PublishedJobs, look: str
) -> None:
    owner = f"crowd-{look}"
    jobs = [queued(f"{look}-{number}", owner) for number in range(MANY)]
    for at in range(0, MANY, 500):
        published.publish(*jobs[at : at + 500])
    tab = open_tab(f"/#/?feed=owner%3A{owner}", look=look, feeds=["*"])
    expect(tab.page.locator('[data-group="all"]')).to_contain_text(f"{MANY:,}")
    rows = tab.page.get_by_role("list", name="Jobs").locator("li")
    expect(rows.first).to_have_attribute("aria-setsize", str(MANY))
    assert rows.count() < 60
    rows.first.get_by_role("link").focus()
    tab.page.keyboard.press("End")
    expect(tab.page.locator(f'li[aria-posinset="{MANY}"]').get_by_role("link")).to_be_focused()
    assert rows.count() < 60
    assert_clean(tab.page)


def test_list_scrolls_to_the_job_of_a_link(open_tab: OpenTab, published: PublishedJobs) -> None:
    published.publish(*(queued(f"linked-{number}", "linked") for number in range(400)))
    tab = open_tab("/#/jobs/linked-20?feed=owner%3Alinked", feeds=["*"], jobs=["*"])
    expect(tab.row("linked-20")).to_be_in_viewport()
    expect(tab.row("linked-399")).to_have_count(0)
