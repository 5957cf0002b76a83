"""The URLs of the site in the tests' process."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path

from jobcast.celery.apps import active_apps


def page(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string(
        '{% load jobcast %}{% jobcast_progress job_id log=True label="The <b>report</b>" %}'
    )
    return HttpResponse(template.render({"job_id": request.GET.get("job")}, request))


def start(request: HttpRequest) -> HttpResponse:
    """Start the job ``id`` of the task ``task``, and fail if the request has ``fail``."""
    (task,) = [
        app.tasks[name] for app in active_apps() if (name := request.POST["task"]) in app.tasks
    ]
    task.owned_by("alice").apply_async_on_commit(task_id=request.POST["id"])
    if "fail" in request.POST:
        raise ZeroDivisionError
    return HttpResponse(status=204)


urlpatterns = [
    path("jobcast/", include("jobcast.integrations.django.urls")),
    path("page", page),
    path("start", start),
]
