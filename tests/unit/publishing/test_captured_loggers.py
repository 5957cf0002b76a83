"""The loggers whose records are shown to the followers of a job."""

from __future__ import annotations

import pytest

from jobcast.publishing.log_capture import is_captured


@pytest.mark.parametrize(
    ("name", "package", "listed", "captured"),
    [
        ("celery.task", "shop", (), True),
        ("celery.task.reports", None, (), True),
        ("celery.tasks", "shop", (), False),
        ("shop", "shop", (), True),
        ("shop.reports.pdf", "shop", (), True),
        ("shopping", "shop", (), False),
        ("root", "shop", (), False),
        ("httpx", "shop", (), False),
        ("botocore.credentials", "shop", (), False),
        ("urllib3.connectionpool", "shop", (), False),
        ("httpx", "shop", ("httpx",), True),
        ("httpx.transports", "shop", ("httpx",), True),
        ("httpcore", "shop", ("httpx",), False),
        ("httpx", "shop", ("*",), True),
        ("shop.reports", "shop", ("httpx",), True),
        ("shop", None, (), False),  # no task and no caller
        ("shop", None, ("shop",), True),
        # Records of the infrastructure are excluded, even if they are listed.
        ("redis.connection", "shop", ("*",), False),
        ("kombu", "shop", ("kombu",), False),
        ("jobcast.publishing.publisher", "jobcast", ("*",), False),
        ("celery.app.trace", "shop", ("celery",), False),
    ],
)
def test_captured_logger_names(
    name: str, package: str | None, listed: tuple[str, ...], captured: bool
) -> None:
    assert is_captured(name, package, listed) is captured


def test_task_logger_is_captured_under_any_name() -> None:
    assert is_captured("reports", "shop", (), of_task=True)
    assert not is_captured("reports", "shop", ())
