"""The settings. The tests pass addresses and paths in the environment."""

import os

SECRET_KEY = "a secret for tests that is long enough"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["TEST_DATABASE"]}
}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "jobcast.integrations.django",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
USE_TZ = True

CELERY_BROKER_URL = os.environ.get("TEST_BROKER", os.environ["TEST_REDIS"])
CELERY_TASK_DEFAULT_QUEUE = os.environ["TEST_QUEUE"]
JOBCAST = {
    "URL": os.environ["TEST_REDIS"],
    "PORT": os.environ["TEST_PORT"],
    "LEASE": 12,  # a loaded machine may delay a renewal by seconds
    "LOST_AFTER": 1,
    "ENQUEUE_TIMEOUT": 30,
}
