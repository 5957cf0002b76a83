"""The HTML of the element ``<jobcast-job>``, for templates."""

from __future__ import annotations

from html import escape


def job_element(
    job_id: object,
    *,
    token_url: str,
    base_url: str = "",
    csrf_token: str = "",
    csrf_header: str = "",
    nonce: str = "",
    label: str = "",
    log: bool = False,
    cancellable: bool = False,
) -> str:
    """Return a live bar for a job, with the script that draws it; an empty text without a job.

    Args:
        job_id: the job, or None. It may come from a request: all values are escaped.
        token_url: the URL at which the page requests tokens.
        base_url: the URL of the server; empty for the origin of the page.
        csrf_token: the token that the framework expects from the page's requests, if any.
        csrf_header: the header in which it expects the token; empty for ``X-CSRFToken``.
        nonce: the nonce of the page's content security policy, if it has one.
        label: the name of the bar for screen readers.
        log: whether to show the log lines.
        cancellable: whether to show a button that cancels the job.

    >>> job_element("42", token_url="/jobcast/token")
    """
    if job_id is None or job_id == "":
        return ""
    script = {"type": "module", "src": f"{base_url}/jobcast.js", "nonce": nonce}
    job = {
        "job-id": str(job_id),
        "base-url": base_url,
        "token-url": token_url,
        "csrf-token": csrf_token,
        "csrf-header": csrf_header,
        "label": label,
    }
    flags = "".join(
        f" {name}" for name, is_set in (("log", log), ("cancellable", cancellable)) if is_set
    )
    return (
        f"<script{_attributes(script)}></script>\n"
        f"<jobcast-job{_attributes(job)}{flags}></jobcast-job>"
    )


def _attributes(values: dict[str, str]) -> str:
    return "".join(f' {name}="{escape(value)}"' for name, value in values.items() if value)
