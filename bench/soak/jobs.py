"""The jobs of a soak; the events of a job depend only on its seed."""

from __future__ import annotations

import json
import os
import random
import time
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals, states

from jobcast import ProgressTask

app = Celery("soak", broker=os.environ.get("CELERY_BROKER_URL", "memory://"), set_as_current=False)
app.conf.update(
    result_backend=os.environ.get("CELERY_BROKER_URL", "cache+memory://"),
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


QUEUED = "queued"
ENDED = "soak-ended"  # the Redis set of jobs that have ended


@dataclass(frozen=True)
class Step:
    lines: range  # numbers of the logged lines
    pause: float  # seconds


@dataclass(frozen=True)
class Script:
    """The behaviour of a job."""

    seed: int
    steps: tuple[Step, ...]
    retry_before: int | None  # the step before which the first attempt is retried
    fails: bool

    @classmethod
    def of(cls, seed: int) -> Script:
        rng = random.Random(f"job {seed}")
        steps: list[Step] = []
        logged = 0
        for _ in range(rng.randint(20, 120)):
            lines = rng.choice((0, 0, 0, 1, 1, 3))
            steps.append(Step(range(logged, logged + lines), rng.uniform(0.003, 0.05)))
            logged += lines
        retry_before = rng.randint(1, len(steps) - 1) if rng.random() < 0.3 else None
        return cls(seed, tuple(steps), retry_before, fails=rng.random() < 0.25)

    def run(self, attempt: int) -> range:
        """Return the numbers of the steps of one attempt."""
        if attempt == 1:
            return range(self.retry_before or len(self.steps))
        return range(self.retry_before or 0, len(self.steps))

    @property
    def attempts(self) -> tuple[int, ...]:
        return (1,) if self.retry_before is None else (1, 2)

    @property
    def result(self) -> dict[str, int]:
        return {"seed": self.seed, "steps": len(self.steps)}

    @property
    def problem(self) -> str:
        return f"seed {self.seed} fails"

    def transcript(self) -> list[str]:
        """Return the texts of all events except progress; the end comes last."""
        texts = [QUEUED]
        for attempt in self.attempts:
            if attempt == 2:
                texts.append("retrying 2")
            texts.append(f"started {attempt}")
            for number in self.run(attempt):
                texts += [line_of(line) for line in self.steps[number].lines]
        texts.append(failed("LookupError", self.problem) if self.fails else completed(self.result))
        return texts

    @property
    def last_progress(self) -> str:
        return message_of(len(self.steps) - 1)


def has_ended(job_id: str) -> bool:
    """Return whether the last attempt has ended.

    Celery's state may stay ``RETRY``: the worker that sent the retry may store this state after
    another worker has stored the end.
    """
    return bool(app.backend.client.sismember(ENDED, job_id))


@signals.task_postrun.connect(weak=False)
def _record_end(task_id: str, state: str, **_: object) -> None:
    if state != states.RETRY:
        app.backend.client.sadd(ENDED, task_id)


def line_of(number: int) -> str:
    return f"line {number}"


def message_of(step: int) -> str:
    return f"step {step}"


def completed(result: Any) -> str:
    return f"complete {json.dumps(result, sort_keys=True)}"


def failed(error: str, message: str, reason: str = "failure") -> str:
    return f"error {error}: {message} ({reason})"


@app.task(base=ProgressTask, bind=True, max_retries=1)
def work(self: ProgressTask, seed: int) -> dict[str, int]:
    script = Script.of(seed)
    attempt = self.request.retries + 1
    for number in script.run(attempt):
        step = script.steps[number]
        self.progress(number * 100 / len(script.steps), "working")
        for line in step.lines:
            self.log(line_of(line))
        self.progress(current=number + 1, total=len(script.steps), message=message_of(number))
        time.sleep(step.pause)
    if attempt == 1 and script.retry_before is not None:
        raise self.retry(exc=ConnectionError("retry of the seed"), countdown=0)
    if script.fails:
        raise LookupError(script.problem)
    return script.result
