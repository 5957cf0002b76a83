from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from jobcast.cli.job_list import JobList
from jobcast.feeds import JobSummary

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


def job(job_id: str, status: str = "started", **fields: Any) -> JobSummary:
    return JobSummary(job_id=job_id, epoch="e", seq=1, status=status, created_at=NOON, **fields)


def listed(*jobs: JobSummary) -> JobList:
    found = JobList()
    found.update(jobs)
    return found


def ids(found: JobList) -> str:
    return " ".join(one.job_id for one in found.window(100))


def order(found: JobList, name: str) -> str:
    """Return the ids in an order."""
    while found.order.name != name:
        found.next_order()
    return ids(found)


JOBS = (
    job("new", "queued"),
    job("half", percentage=50.0, started_at=NOON - timedelta(minutes=5), title="zebra"),
    job("done", "complete", percentage=90.0, started_at=NOON - timedelta(hours=2), ended_at=NOON),
    job("stuck", "stalled", started_at=NOON - timedelta(minutes=9), task="shop.Alpha"),
    job("bad", "error", started_at=NOON - timedelta(hours=3), ended_at=NOON, title="Beta"),
    job("again", "retrying", percentage=None, tags=("project:7",)),
)


def test_orders_put_the_important_jobs_first() -> None:
    found = listed(*JOBS)
    assert ids(found) == "new half done stuck bad again"
    assert order(found, "stuck") == "stuck again half new done bad"
    assert order(found, "least done") == "new stuck bad again half done"
    assert order(found, "longest") == "stuck half bad done new again"
    assert order(found, "name") == "again stuck bad done new half"
    assert order(found, "newest") == "new half done stuck bad again"
    found.reverse()
    assert ids(found) == "again bad stuck done half new"


def test_filters_show_groups_of_states() -> None:
    found = listed(*JOBS, job("odd", "frozen"), job("off", "cancelled"))
    counts = {"running": 4, "waiting": 1, "failed": 1, "cancelled": 1, "complete": 1}
    assert found.counts() == counts
    shown = {}
    for _ in range(6):
        shown[found.shown] = ids(found)
        found.next_filter()
    assert shown == {
        "all": "new half done stuck bad again odd off", "running": "half stuck again odd",
        "waiting": "new", "failed": "bad", "cancelled": "off", "complete": "done",
    }  # fmt: skip


def test_search_finds_ids_names_tags_and_messages() -> None:
    found = listed(*JOBS, job("m", message="disk is FULL", owner="carol"))
    for text, expected in (
        ("STUCK", "stuck"), ("zeb", "half"), ("shop.", "stuck"), ("project:7", "again"),
        ("full", "m"), ("carol", "m"), ("nothing", ""),
    ):  # fmt: skip
        found.find(text)
        assert ids(found) == expected
    assert found.selected is None
    found.show_all()
    assert len(found.window(100)) == 7


def test_selected_job_stays_selected_when_others_come_and_go() -> None:
    found = listed(job("a"), job("b"), job("c"))
    found.move(1)
    assert found.selected == job("b")
    found.update((job("new"), job("a"), job("b"), job("c")))
    assert found.selected == job("b")
    found.update((job("c"),))
    assert found.selected == job("c")
    found.update(())
    assert found.selected is None


def test_first_job_is_selected_until_the_user_moves() -> None:
    found = listed(job("a"))
    found.update((job("new"), job("a")))
    assert found.selected == job("new")


def test_another_order_selects_the_first_job() -> None:
    found = listed(*JOBS)
    found.move(3)
    found.next_order()
    assert found.selected is not None
    assert found.selected.job_id == "stuck"


def test_window_follows_the_selected_job() -> None:
    found = listed(*(job(str(number)) for number in range(10)))

    def window() -> str:
        return "".join(one.job_id for one in found.window(3))

    assert window() == "012"
    found.move(3)
    assert window() == "123"
    found.move(-2)
    assert window() == "123"
    found.move(100)
    assert window() == "789"
    found.move(-100)
    assert window() == "012"
    found.update([job("0")])
    assert window() == "0"
