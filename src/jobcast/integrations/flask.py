"""jobcast for Flask: a blueprint with the endpoints of pages that follow jobs.

>>> app.register_blueprint(blueprint(current_user=lambda: session.get("user_id")))
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request, url_for

from jobcast.events import MAX_BODY_BYTES
from jobcast.integrations.endpoint import Answer, Endpoint, Subject
from jobcast.integrations.progress_function import progress_function
from jobcast.issuing import TOKEN_TTL
from jobcast.settings import Settings

CurrentUser = Callable[[], Subject | None]
"""Returns the id of the user of the current request, as given to ``owned_by``, or None."""


def blueprint(
    *,
    current_user: CurrentUser,
    settings: Settings | None = None,
    ttl: float = TOKEN_TTL,
    internal_url: str | None = None,
    url_prefix: str = "/jobcast",
    name: str = "jobcast",
) -> Blueprint:
    """Return a blueprint with ``POST token``, ``GET jobs/ID``, its ``events`` and its ``cancel``.

    It also gives templates the function ``jobcast_progress(job_id, log=False, label="",
    cancellable=False)``, which draws a live bar. The page's requests get the token of
    ``csrf_token``, and its script the nonce of ``csp_nonce``: functions or values of the template's
    context, as Flask-WTF and Flask-Talisman provide them.

    Args:
        current_user: your session check.
        settings: the settings; by default those of the environment and of the Celery application
            that has ``jobcast_*`` settings.
        ttl: lifetime of tokens, in seconds.
        internal_url: the URL at which this process reaches ``jobcast serve``. The default is
            ``JOBCAST_PUBLIC_URL`` if that has a host, else the server's own address.
        url_prefix: the path of the endpoints.
        name: the name of the blueprint, for ``url_for("jobcast.token")``.
    """
    endpoint = Endpoint(settings, ttl=ttl, internal_url=internal_url)
    found = Blueprint(name, __name__, url_prefix=url_prefix)

    @found.post("/token")
    def token() -> Response:
        return _respond(endpoint.token(current_user()))

    # A job id may contain slashes.
    @found.get("/jobs/<path:job_id>")
    def job(job_id: str) -> Response:
        return _respond(endpoint.snapshot(current_user(), job_id, _query()))

    @found.get("/jobs/<path:job_id>/events")
    def events(job_id: str) -> Response:
        return _respond(endpoint.events(current_user(), job_id, _query()))

    @found.post("/jobs/<path:job_id>/cancel")
    def cancel(job_id: str) -> Response:
        body = request.stream.read(MAX_BODY_BYTES + 1)
        return _respond(endpoint.cancel(current_user(), job_id, request.content_type, body))

    draw = progress_function(
        settings=lambda: endpoint.settings,
        token_url=lambda _: url_for(f"{name}.token"),
        nonce=lambda context: context.get("csp_nonce"),
    )
    found.add_app_template_global(draw, "jobcast_progress")
    return found


def _respond(answer: Answer) -> Response:
    return Response(
        answer.body, answer.status, dict(answer.headers), content_type=answer.content_type
    )


def _query() -> str:
    return request.query_string.decode("ascii", "replace")
