"""The views for pages of signed-in users. ``jobcast.integrations.django.urls`` names them.

Scripts request them, so they answer 401 without a user, where ``LoginRequiredMiddleware`` would
redirect to a page.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET, require_POST

from jobcast.integrations.django import conf
from jobcast.integrations.django.sessions import subject_of, token_id_of
from jobcast.integrations.endpoint import Answer


@login_not_required
@require_POST
def token(request: HttpRequest) -> HttpResponse:
    """Return ``{token, expires_at, url}`` for the signed-in user.

    Django's protection against cross-site requests applies.
    """
    user = subject_of(request)
    jti = None if user is None else token_id_of(request)
    return _respond(conf.endpoint().token(user, jti=jti))


@login_not_required
@require_GET
def snapshot(request: HttpRequest, job_id: str) -> HttpResponse:
    """Return the state of a job of the signed-in user."""
    query = request.META.get("QUERY_STRING", "")
    return _respond(conf.endpoint().snapshot(subject_of(request), job_id, query))


@login_not_required
@require_POST
def cancel(request: HttpRequest, job_id: str) -> HttpResponse:
    """Cancel a job of the signed-in user.

    Django's protection against cross-site requests applies.
    """
    user = subject_of(request)
    return _respond(conf.endpoint().cancel(user, job_id, request.content_type, request.body))


@login_not_required
@require_GET
def events(request: HttpRequest, job_id: str) -> HttpResponse:
    """Redirect to the event stream of a job, so that no process of Django serves streams.

    The server recognises the user by the cookie of the session, or by a token in the URL if
    ``TOKEN_IN_QUERY`` is set.
    """
    user = subject_of(request)
    jti = None if user is None else token_id_of(request)
    query = request.META.get("QUERY_STRING", "")
    return _respond(conf.endpoint().events(user, job_id, query, jti=jti))


def _respond(answer: Answer) -> HttpResponse:
    return HttpResponse(
        answer.body,
        status=answer.status,
        content_type=answer.content_type,
        headers=dict(answer.headers),
    )
