"""URLs for pages that follow jobs.

>>> urlpatterns = [path("jobcast/", include("jobcast.integrations.django.urls"))]
"""

from __future__ import annotations

from django.urls import path

from jobcast.integrations.django import views

app_name = "jobcast"

urlpatterns = [
    path("token", views.token, name="token"),
    # A job id may contain slashes.
    path("jobs/<path:job_id>/events", views.events, name="events"),
    path("jobs/<path:job_id>/cancel", views.cancel, name="cancel"),
    path("jobs/<path:job_id>", views.snapshot, name="job"),
]
