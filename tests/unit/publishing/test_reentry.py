"""Foreign code that runs in the middle of a call to jobcast does not block the process's jobs.

Each case runs in its own interpreter, which ends with every thread's traceback if it hangs.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support import TIMEOUT

PRELUDE = f"""
import faulthandler, gc, logging, signal, sys, threading
from jobcast import open_job
from jobcast.transports.memory import MemoryBroker

faulthandler.dump_traceback_later({TIMEOUT}, exit=True)

class Logs:
    def __str__(self):
        job.log("from __str__")
        return "a text"

    def __float__(self):
        job.log("from __float__")
        return 50.0

job = open_job("a")
"""

EPILOGUE = """
job.complete("done")
# On a busy machine the final event may be stored after complete() has returned.
while MemoryBroker.at("memory://reentry").snapshot("a", None).state != "complete":
    threading.Event().wait(0.01)
"""

CASES = {
    "a message whose text logs": """
for n in range(200):
    job.progress(n / 2, Logs())
    job.log("a line")
""",
    "a number that logs": f"""
from jobcast.publishing.publisher import Publisher

Publisher.flush.__defaults__ = ({TIMEOUT},)  # on a busy machine the thread may take longer
for n in range(200):
    job.progress(current=Logs(), total=100)
    assert job.flush()
""",
    "a log line whose text reports progress": """
class Reports:
    def __str__(self):
        job.progress(10, "from __str__")
        job.flush()
        return "a text"

for n in range(200):
    job.log(Reports())
""",
    "a finalizer that logs during a collection": """
class Garbage:
    def __init__(self):
        self.itself = self

    def __del__(self):
        if gc.isenabled():
            Garbage()  # provides garbage for the next collection
            job.log("from a finalizer")

gc.set_threshold(1)
Garbage()
for n in job.track(range(500)):
    job.log("a line")
gc.disable()
""",
    "a finalizer that waits for the transport": """
class Garbage:
    def __init__(self):
        self.itself = self

    def __del__(self):
        if gc.isenabled():
            Garbage()
            job.progress(1, "from a finalizer")
            job.flush()

gc.set_threshold(1)
Garbage()
for n in job.track(range(20)):
    job.log("a line")
gc.disable()
""",
    "a signal handler that reports progress": """
signals = 0

def handler(*_):
    global signals
    signals += 1
    job.progress(signals % 100, "from a handler")
    job.log("from a handler")

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
while signals < 1000:
    job.progress(5)
    job.log("a line")
signal.setitimer(signal.ITIMER_REAL, 0)
""",
    "a signal handler that waits for the transport": """
signals = 0

def handler(*_):
    global signals
    signals += 1
    job.flush()
    signal.setitimer(signal.ITIMER_REAL, 0.001)

signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
while signals < 50:
    job.progress(5)
    job.log("a line")
signal.signal(signal.SIGALRM, signal.SIG_IGN)
""",
    "a jobcast warning while a logging handler holds its lock": """
emitting, warning = threading.Event(), threading.Event()

class Handler(logging.Handler):
    def emit(self, record):
        if record.name == "application":
            emitting.set()
            warning.wait()
            job.log("from a handler, which holds its lock")

class HasNoText:
    def __str__(self):
        warning.set()
        raise RuntimeError("no text")

logging.getLogger().addHandler(Handler())
thread = threading.Thread(target=logging.getLogger("application").warning, args=("a record",))
thread.start()
emitting.wait()
job.progress(1, HasNoText())
job.flush()
thread.join()
""",
    "a time limit that is reached again and again": """
class Reached(Exception):
    pass

def handler(*_):
    raise Reached

signal.signal(signal.SIGALRM, handler)
reached = 0
while reached < 1000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00005 + reached % 50 / 1_000_000)
        while True:
            job.log("a line")
            job.progress(5)
    except Reached:
        reached += 1
""",
}


@pytest.mark.parametrize("case", CASES)
def test_reentrant_calls_do_not_block_the_job(case: str) -> None:
    # Coverage takes a lock of its own in the traced code, and is not re-entrant.
    uncovered = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + CASES[case] + EPILOGUE],
        env={**uncovered, "JOBCAST_URL": "memory://reentry"},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
