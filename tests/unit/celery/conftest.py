"""What several tests of the Celery adapter share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals


@pytest.fixture
def sent() -> Iterator[list[dict[str, Any]]]:
    """Return the list of the headers of all sent messages."""
    messages: list[dict[str, Any]] = []

    def record(headers: dict[str, Any], **_: Any) -> None:
        messages.append(headers)

    signals.before_task_publish.connect(record)
    yield messages
    signals.before_task_publish.disconnect(record)
