"""The Django application ``jobcast.integrations.django``."""

from __future__ import annotations

from django.apps import AppConfig

from jobcast.settings import use_defaults


class JobcastConfig(AppConfig):
    """The application's configuration."""

    name = "jobcast.integrations.django"
    label = "jobcast"
    verbose_name = "jobcast"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in, user_logged_out

        from jobcast.integrations.django import checks, conf, sessions

        use_defaults(conf.variables)
        checks.register()
        user_logged_in.connect(sessions.name_session, dispatch_uid="jobcast.sign_in")
        user_logged_out.connect(sessions.revoke_on_sign_out, dispatch_uid="jobcast.sign_out")
