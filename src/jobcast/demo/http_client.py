"""An HTTP client for the demo's site, which starts jobs as the site's page does."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

from jobcast.errors import JobcastError
from jobcast.events import check_job_id

TIMEOUT: Final = aiohttp.ClientTimeout(total=60)  # seconds; generous, for a loaded machine


async def start_jobs(url: str, name: str) -> list[str]:
    """Sign in, and start each task of the site with its sample input.

    Returns:
        The ids of the jobs.

    Raises:
        JobcastError: the site refused a request or could not be reached.
    """
    # unsafe: aiohttp otherwise drops the cookies of a host that is an IP address.
    cookies = aiohttp.CookieJar(unsafe=True)
    try:
        async with aiohttp.ClientSession(url, cookie_jar=cookies, timeout=TIMEOUT) as site:
            await _ask(site, "POST", "/api/session", json={"name": name})
            tasks = (await _ask(site, "GET", "/api/tasks"))["tasks"]
            jobs = [await _ask(site, "POST", f"/api/jobs/{task['name']}") for task in tasks]
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise JobcastError(f"the jobs could not be started: {exc!r}") from exc
    return [check_job_id(job["job_id"]) for job in jobs]


async def _ask(site: aiohttp.ClientSession, method: str, path: str, **body: Any) -> Any:
    async with site.request(method, path, **body) as response:
        answer = await response.json()
    if not response.ok:
        raise JobcastError(f"the jobs could not be started: {answer.get('message', answer)}")
    return answer
