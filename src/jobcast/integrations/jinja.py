"""jobcast for templates of Jinja, in applications of Starlette and FastAPI.

>>> templates = Jinja2Templates("templates")
>>> add_jobcast_progress(templates.env)
"""

from __future__ import annotations

from jinja2 import Environment
from jinja2.runtime import Context
from starlette.requests import Request

from jobcast.integrations.progress_function import progress_function
from jobcast.issuing import default_settings
from jobcast.settings import Settings


def add_jobcast_progress(
    env: Environment,
    *,
    settings: Settings | None = None,
    name: str = "jobcast",
    csrf_header: str = "",
) -> None:
    """Give templates the function ``jobcast_progress``, which draws a live bar for a job.

    Its arguments are ``(job_id, log=False, label="", cancellable=False)``. It draws nothing if
    ``job_id`` is None or empty. The context of the template needs the ``request``, as in
    ``Jinja2Templates``.

    The page's script gets the nonce of its content security policy from ``csp_nonce`` of the
    context or of ``request.state``, and its requests the token against cross-site requests from
    ``csrf_token`` of the context. Each may be a text, or a function that returns one.

    Args:
        env: the environment of the templates.
        settings: the settings; by default those of the environment and of the Celery application
            that has ``jobcast_*`` settings.
        name: the name of the mount or router with the endpoints.
        csrf_header: the header in which the application expects the token against cross-site
            requests; empty for ``X-CSRFToken``.
    """

    def token_url(context: Context) -> str:
        # A path: behind a proxy, the application may know the wrong scheme and host.
        return str(_request(context).url_for(f"{name}:token").path)

    env.globals["jobcast_progress"] = progress_function(
        settings=lambda: settings or default_settings(),
        token_url=token_url,
        nonce=_nonce,
        csrf_header=csrf_header,
    )


def _request(context: Context) -> Request:
    """Return the request that the template's context has.

    Raises:
        TypeError: it has none.
    """
    request: Request | None = context.get("request")
    if request is None:
        raise TypeError(
            "jobcast_progress: the template's context has no request: render the template with"
            " TemplateResponse(request, ...), and import a macro that calls jobcast_progress with"
            " {% import ... with context %}"
        )
    return request


def _nonce(context: Context) -> object:
    """Return the nonce of the page's content security policy, of the context or of the request."""
    return context.get("csp_nonce") or getattr(_request(context).state, "csp_nonce", None)
