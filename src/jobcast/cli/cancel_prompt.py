"""The key ``c`` of ``watch`` and ``top``: cancel a job, after a question."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from jobcast.aio import BackgroundTasks
from jobcast.cli.job_view import JobView
from jobcast.cli.keyboard import Keyboard
from jobcast.client import CancelResult, JobClient
from jobcast.errors import ClientError


def outcome_text(result: CancelResult) -> str:
    """Return the answer to a request in words."""
    match result.outcome:
        case "cancelled":
            return "cancelled"
        case "already_ended":
            return "has already ended"
        case "requested" if result.terminates:
            return "cancelling: the worker terminates the run if it does not end by itself"
        case "requested":
            return "cancelling: the run ends where its task checks for the request"
        case outcome:
            return outcome


class CancelPrompt:
    """A question in a display that reads single keys: whether to cancel jobs.

    Attributes:
        question: the question that waits for a key; empty if there is none.
        notice: what became of the latest request; empty if there was none.
    """

    def __init__(self, client: JobClient) -> None:
        self._client = client
        self._requests = BackgroundTasks()
        self._jobs: Mapping[str, str] = {}
        self.question = ""
        self.notice = ""

    def ask(self, jobs: Mapping[str, str]) -> None:
        """Ask about jobs: the names by the ids."""
        self._jobs = jobs
        self.notice = ""
        what = next(iter(jobs.values())) if len(jobs) == 1 else f"{len(jobs)} jobs"
        self.question = f"Cancel {what}? y: yes, any other key: no"

    def answer(self, key: str) -> None:
        """Take the key after the question. The requests are sent in the background."""
        self.question = ""
        if key in ("y", "Y"):
            self.notice = "sending the request …"
            for job_id, name in self._jobs.items():
                self._requests.spawn(self._cancel(job_id, name))

    async def close(self) -> None:
        """Give up requests that the server has not answered."""
        await self._requests.cancel()

    async def _cancel(self, job_id: str, name: str) -> None:
        try:
            result = await self._client.cancel(job_id)
        except ClientError as exc:
            self.notice = f"{name} is not cancelled: {exc}"
        else:
            self.notice = f"{name}: {outcome_text(result)}"


async def read_keys(
    keyboard: Keyboard, prompt: CancelPrompt, jobs: Sequence[JobView], quit_keys: Collection[str]
) -> None:
    """Apply the keys of a display of jobs until one of ``quit_keys`` ends it."""
    while True:
        key = await keyboard.key()
        prompt.notice = ""
        if prompt.question:
            prompt.answer(key)
        elif key in quit_keys:
            return
        elif key == "c":
            open_jobs = {job.job_id: job.name for job in jobs if job.can_be_cancelled}
            if open_jobs:
                prompt.ask(open_jobs)
            else:
                prompt.notice = "no request can cancel this now"
