"""The Celery app: ``celery -A worker.app worker``."""

import os
import sys

from celery import Celery
from celery.exceptions import ImproperlyConfigured

from jobcast.errors import SettingsError
from jobcast.masking import mask
from jobcast.settings import Settings

try:
    URL = Settings.load().url
except SettingsError as exc:
    sys.exit(f"worker: {exc}")

app = Celery(
    "worker",
    broker=os.environ.get("CELERY_BROKER_URL") or URL,
    backend=os.environ.get("CELERY_RESULT_BACKEND") or URL,
    include=[
        "tasks.checksums",
        "tasks.people",
        "tasks.thumbnails",
        "tasks.flaky",
        "tasks.broken",
    ],
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=3600,  # seconds
    worker_prefetch_multiplier=1,  # jobs are long, so a process reserves only one at a time
)

# Report a wrong URL in one line: Celery would print a traceback.
try:
    _ = app.connection_for_write(), app.backend
except (KeyError, ValueError, ImportError, ImproperlyConfigured) as exc:
    problem = mask(" ".join(str(exc.args[0]).split()))
    sys.exit(
        "worker: set CELERY_BROKER_URL and CELERY_RESULT_BACKEND, or JOBCAST_URL for both,"
        f" to URLs that Celery knows: {problem}"
    )
