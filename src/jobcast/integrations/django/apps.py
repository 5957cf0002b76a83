"""The Django application ``jobcast.integrations.django``."""

from __future__ import annotations

from django.apps import AppConfig


class JobcastConfig(AppConfig):
    """The application's configuration."""

    name = "jobcast.integrations.django"
    label = "jobcast"
    verbose_name = "jobcast"
