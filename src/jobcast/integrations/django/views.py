"""The views for pages of signed-in users. ``jobcast.integrations.django.urls`` names them."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.views.decorators.http import require_GET, require_POST

from jobcast.integrations.django import conf
from jobcast.integrations.django.sessions import subject_of, token_id_of
from jobcast.integrations.endpoint import Answer, no_such_job, signed_out


class TemporaryRedirect(HttpResponseRedirect):
    """A redirect after which the request is repeated with its method."""

    status_code = 307


@require_POST
def token(request: HttpRequest) -> HttpResponse:
    """Return ``{token, expires_at, url}`` for the signed-in user.

    Django's protection against cross-site requests applies.
    """
    user = subject_of(request)
    jti = None if user is None else token_id_of(request)
    return _respond(conf.endpoint().token(user, jti=jti))


@require_GET
def snapshot(request: HttpRequest, job_id: str) -> HttpResponse:
    """Return the state of a job of the signed-in user."""
    query = request.META.get("QUERY_STRING", "")
    return _respond(conf.endpoint().snapshot(subject_of(request), job_id, query))


@require_GET
def events(request: HttpRequest, job_id: str) -> HttpResponse:
    """Redirect to the event stream of a job, so that no process of Django serves streams.

    The server recognises the user by the cookie of the session.
    """
    if subject_of(request) is None:
        return _respond(signed_out())
    try:
        url = conf.endpoint().events_url(job_id, request.META.get("QUERY_STRING", ""))
    except ValueError:
        return _respond(no_such_job())
    return TemporaryRedirect(url)


def _respond(answer: Answer) -> HttpResponse:
    return HttpResponse(
        answer.body,
        status=answer.status,
        content_type=answer.content_type,
        headers=dict(answer.headers),
    )
