"""The configurations of docs/how-to/proxies.md, run by their proxies in front of a real server."""

from __future__ import annotations

import re
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import pytest
from socketio.exceptions import ConnectionError as Refused

from jobcast.client import JobClient
from jobcast.errors import ConnectionRefused
from jobcast.transports import open_publisher
from tests.conftest import Valkey
from tests.support import (
    ROOT,
    SECRET,
    Process,
    Server,
    answers,
    eventually,
    following,
    free_port,
    new_id,
    running,
    wait_for,
)

Token = Callable[..., str]
StartProxy = Callable[[str, int, int, Path], "Proxy"]

SNIPPETS = re.findall(
    r"^```(nginx|haproxy|caddy|yaml)\n(.*?)^```$",
    (ROOT / "docs" / "how-to" / "proxies.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
TRANSPORTS = [("websocket",), ("polling",)]
# Traefik generates a certificate when it starts.
UNVERIFIED = ssl.create_default_context()
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE


class Proxy(Process):
    """A proxy that listens on ``port``."""

    def __init__(self, argv: list[str], port: int, folder: Path, scheme: str = "http") -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        super().__init__(argv, folder / "proxy.log", {"HOME": str(folder)}, cwd=folder)


def program(name: str) -> str:
    folders = f"{Path(sys.executable).parent}:/usr/sbin:/usr/local/sbin"
    found = shutil.which(name) or shutil.which(name, path=folders)
    assert found, f"{name} is missing: make servers"
    return found


def nginx(snippet: str, port: int, backend: int, folder: Path) -> Proxy:
    site = snippet.replace("listen 80;", f"listen 127.0.0.1:{port};")
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;\n"
        "events {}\nhttp {\naccess_log off;\n"
        + "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"{with_backend(backend, site)}\n}}\n"
    )
    argv = [program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(config)]
    return Proxy(argv, port, folder)


def haproxy(snippet: str, port: int, backend: int, folder: Path) -> Proxy:
    config = folder / "haproxy.cfg"
    config.write_text(
        with_backend(backend, snippet).replace("bind :80\n", f"bind 127.0.0.1:{port}\n")
    )
    return Proxy([program("haproxy"), "-db", "-f", str(config)], port, folder)


def caddy(snippet: str, port: int, backend: int, folder: Path) -> Proxy:
    config = folder / "Caddyfile"
    site = re.sub(r"^[a-z.]*example\.com ", f"http://127.0.0.1:{port} ", snippet)
    config.write_text("{\n    admin off\n}\n" + with_backend(backend, site))
    argv = [program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    return Proxy(argv, port, folder)


def traefik(snippet: str, port: int, backend: int, folder: Path) -> Proxy:
    config = folder / "dynamic.yml"
    config.write_text(with_backend(backend, snippet).replace("jobs.example.com", "127.0.0.1"))
    argv = [
        program("traefik"), f"--entrypoints.web.address=127.0.0.1:{port}",
        f"--providers.file.filename={config}",
        "--global.checknewversion=false", "--global.sendanonymoususage=false",
    ]  # fmt: skip
    return Proxy(argv, port, folder, "https" if "tls:" in snippet else "http")


PROXIES: dict[str, StartProxy] = {
    "nginx": nginx, "haproxy": haproxy, "caddy": caddy, "traefik": traefik,
}  # fmt: skip


def with_backend(backend: int, snippet: str) -> str:
    """Return a snippet that forwards to another port."""
    assert "127.0.0.1:8000" in snippet
    return snippet.replace("127.0.0.1:8000", f"127.0.0.1:{backend}")


@contextmanager
def running_proxy(kind: str, snippet: str, backend: int, folder: Path) -> Iterator[Proxy]:
    folder.mkdir()
    with running(PROXIES[kind](snippet, free_port(), backend, folder)) as proxy:
        yield proxy


def find_snippet(kind: str, *marks: str) -> str:
    found: str
    (found,) = [
        text for name, text in SNIPPETS if name == kind and all(mark in text for mark in marks)
    ]
    return found


TRAEFIK = find_snippet("yaml", "loadBalancer")
SITES = {
    "nginx": ("nginx", find_snippet("nginx", "location /socket.io/")),
    "haproxy": ("haproxy", find_snippet("haproxy")),
    "caddy": ("caddy", find_snippet("caddy", "jobs.example.com")),
    "traefik": ("traefik", TRAEFIK),
    "traefik without TLS": ("traefik", TRAEFIK.replace("      tls: {}\n", "")),
}


@pytest.mark.parametrize(("kind", "snippet"), SITES.values(), ids=SITES)
async def test_page_of_the_proxys_origin_follows_a_job(
    kind: str, snippet: str, server: Server, valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    with running_proxy(kind, snippet, server.port, tmp_path / kind) as proxy:
        url = f"{proxy.url}/socket.io/"
        proxy.expect(lambda: answers(url, 400, UNVERIFIED), "answer through the proxy")
        for transports in TRANSPORTS:
            await follow(proxy.url, valkey, token, transports, origin=proxy.url)
        with pytest.raises(Refused):
            await follow(proxy.url, valkey, token, origin="https://evil.example")


async def follow(
    url: str, valkey: Valkey, token: Token, transports: tuple[str, ...] = ("websocket",),
    **headers: str,
) -> None:  # fmt: skip
    """Follow a job to its end with the headers of a browser page."""
    job_id = new_id()
    publisher = open_publisher(valkey.url)
    try:
        sent = {name.replace("_", "-").title(): value for name, value in headers.items()}
        async with following(
            url, token(jobs=["*"]), transports, ssl_verify=False, headers=sent
        ) as page:
            assert (await page.join(job_id))["ok"]
            publisher.emit("job_complete", {"result": 1}, room=f"job_{job_id}")
            await page.transcript.end(job_id)
    finally:
        publisher.close()


BARE_NGINX = """
server {
    listen 80;
    location / {
        proxy_pass http://127.0.0.1:8000;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
}
"""


async def test_refusal_behind_a_proxy_without_host_forwarding_logs_the_setting(
    valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running(Server(tmp_path / "log", valkey.url)))
        proxy = stack.enter_context(
            running_proxy("nginx", BARE_NGINX, server.port, tmp_path / "nginx")
        )
        wait_for(lambda: answers(f"{proxy.url}/readyz"), "server")
        with pytest.raises(Refused):
            await follow(proxy.url, valkey, token, origin=proxy.url)
        await eventually(lambda: "refused a page" in server.log, "line about the origin")
        (line,) = [line for line in server.log.splitlines() if "refused a page" in line]
        for part in (proxy.url, server.url, "JOBCAST_CORS_ORIGINS (not set)", "pass on Host"):
            assert part in line
        await follow(proxy.url, valkey, token, origin=proxy.url, sec_fetch_site="same-origin")
    env = {"JOBCAST_CORS_ORIGINS": proxy.url}
    with running(Server(tmp_path / "other.log", valkey.url, env)) as server:
        with running_proxy("nginx", BARE_NGINX, server.port, tmp_path / "other") as other:
            wait_for(lambda: answers(f"{other.url}/readyz"), "server")
            for transports in TRANSPORTS:
                await follow(other.url, valkey, token, transports, origin=proxy.url)
            # The setting lists other origins; the server's own origin is always allowed.
            await follow(server.url, valkey, token, origin=server.url)


STRIPPING = find_snippet("caddy", "handle_path")
KEEPING = find_snippet("nginx", "location /jobs/")


async def test_stripped_prefix_is_part_of_the_clients_url(
    server: Server, valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    with running_proxy("caddy", STRIPPING, server.port, tmp_path / "caddy") as proxy:
        await assert_result_under_prefix(f"{proxy.url}/jobs", valkey, token)


@pytest.mark.parametrize("workers", [1, 2])
async def test_kept_prefix_is_served(
    workers: int, valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    port = free_port()
    argv = [
        shutil.which("jobcast") or str(Path(pytest.__file__).parents[4] / "bin" / "jobcast"),
        "serve", "--prefix", "/jobs/", "--port", str(port), "--workers", str(workers),
    ]  # fmt: skip
    env = {"JOBCAST_URL": valkey.url, "JOBCAST_JWT_SECRET": SECRET}
    with (
        running(Process(argv, tmp_path / "log", env)) as server,
        running_proxy("nginx", KEEPING, port, tmp_path / "nginx") as proxy,
    ):
        server.expect(lambda: answers(f"{proxy.url}/jobs/readyz"), "answer of /jobs/readyz")
        await assert_result_under_prefix(f"{proxy.url}/jobs", valkey, token)
        direct = f"http://127.0.0.1:{port}"
        assert answers(f"{direct}/jobs/healthz")
        assert answers(f"{direct}/healthz", 404)
        with pytest.raises(ConnectionRefused, match="answered 404") as caught:
            async with JobClient(direct, token()):
                pass
        assert caught.value.code == "not_found"


async def assert_result_under_prefix(url: str, valkey: Valkey, token: Token) -> None:
    wait_for(lambda: answers(f"{url}/readyz"), "server")
    job_id = new_id()
    publisher = open_publisher(valkey.url)
    publisher.emit("job_complete", {"result": 7}, room=f"job_{job_id}")
    publisher.close()
    async with JobClient(url, token(jobs=["*"])) as client:
        assert await client.result(job_id) == 7


@pytest.mark.parametrize("path", ["/wrong", "/readyz"])
async def test_wrong_path_is_reported(path: str, server: Server, token: Token) -> None:
    with pytest.raises(ConnectionRefused, match=r"answered 404 .* is the path") as caught:
        async with JobClient(f"{server.url}{path}", token()):
            pass
    assert caught.value.code == "not_found"


async def test_proxy_without_websocket_forwarding_is_reported(
    server: Server, token: Token, tmp_path: Path
) -> None:
    with running_proxy("caddy", STRIPPING, server.port, tmp_path / "caddy") as proxy:
        wait_for(lambda: answers(f"{proxy.url}/jobs/readyz"), "server")
        with pytest.raises(ConnectionRefused, match=r"answered 200 .* forward WebSockets"):
            async with JobClient(f"{proxy.url}/other", token()):
                pass


async def test_refused_page_can_read_the_response(server: Server) -> None:
    headers = {"Origin": "https://evil.example"}
    url = f"{server.url}/socket.io/?EIO=4&transport=polling"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, headers=headers) as answer:
            assert answer.status == 403
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
        async with session.post(url, headers={"Origin": server.url}) as answer:
            assert answer.status == 400  # accepted, but without a session
