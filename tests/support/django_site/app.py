"""The Celery application: ``celery -A tests.support.django_site.app worker``."""

import os

from celery import Celery, shared_task

from jobcast.integrations.django import ProgressTask

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.django_site.settings")

app = Celery("django_site")
app.config_from_object("django.conf:settings", namespace="CELERY")


@shared_task(base=ProgressTask, bind=True)
def greet(self: ProgressTask, user_id: int) -> str:
    """Read a row that the sending transaction has written."""
    from django.contrib.auth import get_user_model  # Django is set up when the worker starts

    self.progress(50, "looking up")
    name: str = get_user_model().objects.get(pk=user_id).get_username()
    self.log(f"hello {name}")
    return name
