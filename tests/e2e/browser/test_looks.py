"""The console in forced colours, with large fonts, in landscape and with long texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, expect

from jobcast.events import JobStatus
from jobcast.transports import Origin, Outgoing, open_publisher
from tests import jobs
from tests.conftest import Valkey
from tests.e2e.browser.conftest import Launch
from tests.e2e.browser.tab import Tab
from tests.e2e.browser.test_accessibility import LOOKS, assert_clean
from tests.e2e.browser.test_narrow import UNBROKEN
from tests.support import Worker, new_id

NewTab = Callable[..., Tab]
Send = Callable[..., str]

WIDE = LOOKS["light"]


@pytest.fixture
def user() -> str:
    return new_id("user")


def save_screenshot(tab: Tab, name: str) -> None:
    """Save a screenshot if ``JOBCAST_TEST_PICTURES`` names a folder."""
    folder = os.environ.get("JOBCAST_TEST_PICTURES")
    if folder:
        tab.page.screenshot(path=str(Path(folder) / f"{name}.png"))


def height_of(row: Locator) -> float:
    box = row.bounding_box()
    assert box is not None
    return box["height"]


@pytest.mark.parametrize("message", [UNBROKEN * 12, "many words " * 380], ids=["one", "many"])
def test_a_long_retry_message_does_not_enlarge_the_row(
    sample_worker: Worker,
    new_tab: NewTab,
    send: Send,
    gate: Path,
    user: str,
    valkey: Valkey,
    message: str,
) -> None:
    tab = new_tab(user, **WIDE)
    short = send(sample_worker, jobs.unsteady, str(gate), owner=user)
    long = send(sample_worker, jobs.unsteady, str(gate), owner=user)
    for job_id in (short, long):
        tab.go(job_id)
        tab.expect_status(job_id, "retrying")
    retrying = JobStatus(
        job_id=long, status="retrying", attempt=3, error="ConnectionError", message=message
    )
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(retrying, Origin(owner=user))])
    publisher.close()
    expect(tab.row(long)).to_contain_text("Attempt 3")
    save_screenshot(tab, f"retry-{message[:4]}")
    assert height_of(tab.row(long)) == height_of(tab.row(short))
    assert_clean(tab.page)


def styles(tab: Tab, selector: str, *properties: str) -> list[str]:
    found: list[str] = tab.page.locator(selector).first.evaluate(
        "(it, names) => names.map((name) => getComputedStyle(it)[name])", list(properties)
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_forced_colours_keep_bars_selection_and_focus_visible(
    sample_worker: Worker, new_tab: NewTab, send: Send, gate: Path, user: str, scheme: str
) -> None:
    tab = new_tab(user, **{**WIDE, "color_scheme": scheme}, forced_colors="active")
    job_id, other = (send(sample_worker, jobs.count, 10, str(gate), owner=user) for _ in range(2))
    for each in (other, job_id):
        tab.go(each)
        tab.expect_status(each, "started")
    expect(tab.bar).to_have_attribute("aria-valuenow", "50")
    fill, frame = f'article[data-job-id="{job_id}"] .bar-fill', ".status-panel .bar"
    assert styles(tab, fill, "backgroundColor") != styles(tab, frame, "backgroundColor")
    assert styles(tab, frame, "borderTopStyle") == ["solid"]
    # The open row and the selected filter differ from the others.
    rows = [f'li[data-job-id="{each}"]' for each in (job_id, other)]
    assert styles(tab, rows[0], "borderLeftStyle") == ["solid"]
    assert styles(tab, rows[1], "borderLeftStyle") == ["none"]
    chosen, another = '.filter [aria-pressed="true"]', '.filter [aria-pressed="false"]'
    assert styles(tab, chosen, "backgroundColor") != styles(tab, another, "backgroundColor")
    tab.row(other).get_by_role("link").focus()
    tab.page.keyboard.press("Shift+Tab")
    tab.page.keyboard.press("Tab")
    save_screenshot(tab, f"forced-{scheme}")
    style, width = (
        tab.row(other)
        .get_by_role("link")
        .evaluate(
            "(it) => { const s = getComputedStyle(it, '::after');"
            " return [s.outlineStyle, s.outlineWidth]; }"
        )
    )
    assert (style, width) == ("solid", "2px")
    gate.touch()


@pytest.fixture(scope="module")
def large_font_browser(launch: Launch) -> Iterator[Browser]:
    """A browser with a font size of one and a half times the default."""
    with launch("--blink-settings=defaultFontSize=24") as browser:
        yield browser


@pytest.mark.parametrize(("width", "beside"), [(1500, True), (1100, False)])
def test_the_page_scales_with_the_browsers_font_size(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, large_font_browser: Browser,
    width: int, beside: bool,
) -> None:  # fmt: skip
    tab = new_tab(user, within=large_font_browser, viewport={"width": width, "height": 900})
    job_id = send(sample_worker, jobs.count, 3, owner=user)
    tab.go(job_id)
    tab.expect_status(job_id, "complete")
    save_screenshot(tab, f"large-{width}")
    assert styles(tab, "html", "fontSize") == ["22.5px"]  # 15 px, scaled by 24 / 16
    assert_clean(tab.page)
    clipped = tab.page.locator(".plot svg text").evaluate_all(
        "(texts) => texts.filter((it) => it.getBoundingClientRect().left"
        " < it.ownerSVGElement.getBoundingClientRect().left).map((it) => it.textContent)"
    )
    assert clipped == []
    # The list is next to the job only if there is room for both.
    assert tab.page.locator(".pane").is_visible() == beside


@pytest.mark.parametrize("size", [(844, 390), (667, 375), (932, 430)])
def test_a_phone_in_landscape_shows_either_the_list_or_the_job(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str, size: tuple[int, int]
) -> None:
    width, height = size
    tab = new_tab(user, viewport={"width": width, "height": height}, has_touch=True)
    job_id = send(sample_worker, jobs.count, 3, owner=user)
    tab.go(job_id)
    tab.expect_status(job_id, "complete")
    save_screenshot(tab, f"lying-{width}-job")
    expect(tab.page.locator(".pane")).to_be_hidden()
    assert_clean(tab.page)
    tab.open("/#/")
    expect(tab.row(job_id)).to_be_visible()
    save_screenshot(tab, f"lying-{width}-list")
    # The list has room for several rows.
    assert height_of(tab.page.locator(".rows")) > 3 * height_of(tab.row(job_id))
    assert_clean(tab.page)


def test_a_low_desktop_window_shows_the_list_and_the_job(
    sample_worker: Worker, new_tab: NewTab, send: Send, user: str
) -> None:
    tab = new_tab(user, viewport={"width": 1280, "height": 420})
    job_id = send(sample_worker, jobs.count, 3, owner=user)
    tab.go(job_id)
    expect(tab.page.locator(".pane")).to_be_visible()
