"""Each variant of ``jobcast serve`` lacks its optimization."""

from __future__ import annotations

import gc

from bench.fanout.variants import default_gc, unbatched_log
from jobcast.realtime import app
from jobcast.server import serve
from jobcast.server.gc_tuning import THRESHOLDS


def test_default_gc_keeps_the_thresholds_of_python() -> None:
    before = gc.get_threshold()
    with vars(app)["relaxed_gc"]():
        assert gc.get_threshold() == THRESHOLDS != before
    with default_gc(), vars(app)["relaxed_gc"]():
        assert gc.get_threshold() == before


def test_unbatched_log_writes_with_a_stream_handler() -> None:
    handlers = vars(serve)["log_config"]()["handlers"]
    assert handlers["default"]["class"] == "jobcast.server.logging.BatchingHandler"
    with unbatched_log():
        unbatched = vars(serve)["log_config"]()["handlers"]
    assert unbatched["default"] == handlers["default"] | {"class": "logging.StreamHandler"}
