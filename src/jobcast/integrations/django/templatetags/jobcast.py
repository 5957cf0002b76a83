"""``{% load jobcast %}``"""

from __future__ import annotations

from typing import Any

from django import template
from django.conf import settings
from django.http.request import HttpHeaders
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from jobcast.integrations.element import job_element
from jobcast.issuing import default_settings

register = template.Library()


@register.simple_tag(takes_context=True)
def jobcast_progress(
    context: template.Context,
    job_id: object,
    *,
    log: bool = False,
    label: str = "",
    cancellable: bool = False,
) -> SafeString:
    """Draw a live bar for a job of the signed-in user; nothing if ``job_id`` is None or empty.

    ``log=True`` also shows the log lines. ``label`` names the bar for screen readers.
    ``cancellable=True`` shows a button that cancels the job.

    >>> {% jobcast_progress job_id log=True label="The report" %}
    """
    element = job_element(
        job_id,
        base_url=default_settings().client_url,
        token_url=reverse("jobcast:token"),
        csrf_token=_csrf_token(context),
        csrf_header=_csrf_header(),
        nonce=_nonce(context),
        label=label,
        log=log,
        cancellable=cancellable,
    )
    return mark_safe(element)  # noqa: S308  (job_element escapes all values)


def _csrf_token(context: template.Context) -> str:
    request: Any = context.get("request")
    return "" if request is None else str(get_token(request))


def _csrf_header() -> str:
    """Return the header that the setting ``CSRF_HEADER_NAME`` names as WSGI does."""
    return str(HttpHeaders.parse_header_name(settings.CSRF_HEADER_NAME) or "")


def _nonce(context: template.Context) -> str:
    """Return the nonce of the page's content security policy, if Django or django-csp has one."""
    nonce = context.get("csp_nonce")
    if nonce is None:
        nonce = getattr(context.get("request"), "csp_nonce", None)
    # Django generates a nonce when it is converted to a text. Until then the nonce is false.
    return "" if nonce is None else str(nonce)
