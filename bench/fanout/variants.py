"""``jobcast serve`` without one of its optimizations, to measure the benefit of each.

python -m bench.fanout.variants default-gc|unbatched-log --port PORT
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from unittest.mock import patch

from jobcast.cli.main import main as jobcast
from jobcast.realtime import app
from jobcast.server import logging, serve


def default_gc() -> AbstractContextManager[object]:
    """Keep Python's own thresholds, and let the garbage collector scan all objects."""
    return patch.object(app, "relaxed_gc", nullcontext)


def unbatched_log() -> AbstractContextManager[object]:
    """Write each log line at once."""
    return patch.object(serve, "log_config", _unbatched_log_config)


def _unbatched_log_config() -> dict[str, Any]:
    config = logging.log_config()
    config["handlers"]["default"]["class"] = "logging.StreamHandler"
    return config


VARIANTS: Final[Mapping[str, Callable[[], AbstractContextManager[object]]]] = {
    "default-gc": default_gc,
    "unbatched-log": unbatched_log,
}


def main() -> None:
    variant, *arguments = sys.argv[1:]
    with VARIANTS[variant]():
        jobcast(["serve", *arguments])


if __name__ == "__main__":
    main()
