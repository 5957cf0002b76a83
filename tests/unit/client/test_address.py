"""The URLs and namespaces that the Python client accepts."""

from __future__ import annotations

import pytest

from jobcast.client import JobClient
from jobcast.client.address import socketio_path


@pytest.mark.parametrize(
    "url",
    [
        "", "nonsense", "localhost:8000", "//host", "http://", "http:///path", "ftp://host",
        "http://host:port", "http://host:99999", "http://[::1",
    ],
)  # fmt: skip
def test_invalid_server_url_is_an_error_of_the_constructor(url: str) -> None:
    with pytest.raises(ValueError, match="should be a URL such as http://"):
        JobClient(url, "token")


@pytest.mark.parametrize("namespace", ["", "jobs", "/a,b", "/a?b"])
def test_invalid_namespace_is_an_error_of_the_constructor(namespace: str) -> None:
    with pytest.raises(ValueError, match="should begin with /"):
        JobClient("http://127.0.0.1:8000", "token", namespace=namespace)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://host", "socket.io"),
        ("https://host/", "socket.io"),
        ("ws://host:8000/x/y", "x/y/socket.io"),
        ("wss://host/x/y/", "x/y/socket.io"),
    ],
)
def test_path_of_the_url_precedes_that_of_socketio(url: str, path: str) -> None:
    assert socketio_path(url) == path
