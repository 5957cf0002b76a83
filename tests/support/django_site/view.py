"""A request that creates a user and starts a job.

``python -m tests.support.django_site.view OUTCOME JOB``

The transaction ends with ``commit`` or ``rollback``, or never with ``hang``. The program prints a
line when the job is queued, and goes on at the next line of its input.
"""

import sys

import django

from tests.support.django_site import app as application

django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.db import transaction  # noqa: E402


def request(outcome: str, job_id: str) -> None:
    with transaction.atomic():
        # SQLite has one writer at a time, and the transaction that hangs is open beside others.
        user_id = 0 if outcome == "hang" else get_user_model().objects.create_user(job_id).pk
        signature = application.greet.owned_by("alice")
        job = signature.apply_async_on_commit((user_id,), task_id=job_id)
        print(job.id, flush=True)
        sys.stdin.readline()
        if outcome == "rollback":
            raise ZeroDivisionError


if __name__ == "__main__":
    request(*sys.argv[1:])
