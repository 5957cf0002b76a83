"""A feed that is not available at the first attempt, which makes Celery retry the task."""

import json
from pathlib import Path
from typing import Any

from celery import shared_task

from jobcast import ProgressTask


class FeedBusy(Exception):
    """The upstream is still writing the feed."""


@shared_task(
    base=ProgressTask,
    bind=True,
    autoretry_for=(FeedBusy,),
    max_retries=4,
    default_retry_delay=2,  # seconds
)
def fetch_feed(self: ProgressTask, path: str) -> dict[str, Any]:
    """Read a JSON Feed. Retry while its upstream is still writing it."""
    feed = Path(path)
    if not feed.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    check_upstream(Path(f"{path}.busy"))

    items = json.loads(feed.read_text(encoding="utf-8"))["items"]
    authors: set[str] = set()
    for item in self.track(items, message="reading the feed"):
        authors.update(author["name"] for author in item.get("authors", []))
    return {"items": len(items), "authors": len(authors), "attempts": self.request.retries + 1}


def check_upstream(marker: Path) -> None:
    """Raise FeedBusy while the marker file exists. It contains the number of missing parts.

    This sample has no real upstream, so each check reduces the number by one.
    """
    if not marker.exists():
        return
    parts = int(marker.read_text())
    if parts > 1:
        marker.write_text(str(parts - 1))
    else:
        marker.unlink()
    raise FeedBusy(f"the upstream is still writing: parts to come: {parts}")
