"""The URLs of the site in the tests' process."""

from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path


def page(request: HttpRequest) -> HttpResponse:
    template = engines["django"].from_string(
        '{% load jobcast %}{% jobcast_progress job_id log=True label="The <b>report</b>" %}'
    )
    return HttpResponse(template.render({"job_id": request.GET.get("job")}, request))


urlpatterns = [
    path("jobcast/", include("jobcast.integrations.django.urls")),
    path("page", page),
]
