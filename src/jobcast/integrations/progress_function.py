"""The function ``jobcast_progress`` of Jinja's templates, for the frameworks that use Jinja."""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from jobcast.integrations.element import job_element
from jobcast.settings import Settings

FromContext = Callable[[Context], object]
"""Returns a value for a template: a text, a function that returns one, or None."""


def progress_function(
    *,
    settings: Callable[[], Settings],
    token_url: Callable[[Context], str],
    nonce: FromContext,
    csrf_header: str = "",
) -> Callable[..., Markup]:
    """Return a function that draws a live bar for a job; an empty text without a job.

    Args:
        settings: returns the settings at the time of the call.
        token_url: returns the URL at which the page requests tokens.
        nonce: returns the nonce of the page's content security policy.
        csrf_header: the header in which the application expects the token against cross-site
            requests, ``csrf_token`` of the template's context; empty for ``X-CSRFToken``.
    """

    @pass_context
    def jobcast_progress(
        context: Context,
        job_id: object,
        *,
        log: bool = False,
        label: str = "",
        cancellable: bool = False,
    ) -> Markup:
        element = job_element(
            job_id,
            base_url=settings().client_url,
            token_url=token_url(context),
            csrf_token=evaluated_text(context.get("csrf_token")),
            csrf_header=csrf_header,
            nonce=evaluated_text(nonce(context)),
            label=label,
            log=log,
            cancellable=cancellable,
        )
        return Markup(element)  # noqa: S704  (job_element escapes all values)

    return jobcast_progress


def evaluated_text(value: object) -> str:
    """Return a value of a template's context: a text, a function that returns one, or None."""
    text = value() if callable(value) else value
    return "" if text is None else str(text)
