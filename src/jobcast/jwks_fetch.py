"""Fetch a JWKS with bounds on time, bytes and keys. Needs PyJWT (``jobcast[server]``)."""

from __future__ import annotations

import json
import time
from http.client import HTTPException, HTTPResponse
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

import jwt

from jobcast.errors import JobcastError

MAX_BYTES: Final = 1024 * 1024  # of the document; issuers serve a few KiB
MAX_KEYS: Final = 1000  # in the document; parsing one key takes about 0.1 ms
CHUNK: Final = 64 * 1024  # bytes


class UnusableKeySet(JobcastError):
    """The endpoint does not return a usable JWKS."""


class _NoRedirects(HTTPRedirectHandler):
    """A redirect handler that follows none: keys come only from the configured host."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch_signing_keys(url: str, timeout: float, total: float) -> list[jwt.PyJWK]:
    """Return the signing keys of a JWKS that have a key id. The call blocks.

    Args:
        url: the URL of the JWKS, with the scheme ``http`` or ``https``.
        timeout: maximum time without data from the endpoint, in seconds.
        total: maximum time for the whole document, in seconds.

    Raises:
        UnusableKeySet: the endpoint does not answer in time or does not return a usable JWKS.
    """
    data = _parse(_fetch(url, timeout, total))
    listed = data.get("keys")
    if isinstance(listed, list) and len(listed) > MAX_KEYS:
        raise UnusableKeySet(f"the JWKS has {len(listed)} keys; at most {MAX_KEYS} are accepted")
    try:
        keys = jwt.PyJWKSet.from_dict(data).keys
    except jwt.PyJWTError as exc:
        raise UnusableKeySet(f"the JWKS cannot be used: {exc}") from exc
    signing = [key for key in keys if key.public_key_use in ("sig", None) and key.key_id]
    if not signing:
        raise UnusableKeySet("the JWKS has no signing key with a key id (kid)")
    return signing


def _fetch(url: str, timeout: float, total: float) -> bytes:
    deadline = time.monotonic() + total
    try:
        with build_opener(_NoRedirects).open(Request(url), timeout=timeout) as response:  # noqa: S310
            return _read(response, deadline, total)
    except (OSError, HTTPException) as exc:
        if isinstance(exc, HTTPError):
            exc.close()
        raise UnusableKeySet(f"the JWKS could not be fetched: {str(exc) or repr(exc)}") from exc


def _read(response: HTTPResponse, deadline: float, total: float) -> bytes:
    body = bytearray()
    while chunk := response.read1(CHUNK):
        body += chunk
        if len(body) > MAX_BYTES:
            raise UnusableKeySet(f"the JWKS is larger than the {MAX_BYTES} bytes that are accepted")
        if time.monotonic() > deadline:
            raise UnusableKeySet(f"the JWKS did not arrive within {total:g} s")
    return bytes(body)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise UnusableKeySet(f"the JWKS is not JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise UnusableKeySet("the JWKS is not a JSON object")
    return data
