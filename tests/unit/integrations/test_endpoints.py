"""The endpoints of FastAPI, Starlette and Flask, which answer alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

import httpx
import jwt
import pytest
from fastapi import FastAPI, Header, HTTPException
from flask import Flask, request
from jinja2 import DictLoader, Environment
from msgspec import structs
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.templating import Jinja2Templates

from jobcast.integrations import endpoint
from jobcast.integrations.endpoint import Endpoint
from jobcast.integrations.fastapi import router
from jobcast.integrations.flask import blueprint
from jobcast.integrations.jinja import add_jobcast_progress
from jobcast.integrations.starlette import mount
from jobcast.realtime import create_app
from jobcast.settings import Settings
from tests.support import SECRET, TIMEOUT, free_port

SETTINGS = Settings(jwt_secret=SECRET, public_url="https://jobs.example.com")
USER = UUID("9f1c9a7e-7b6e-4b0c-8a53-0c7fd4f8d7a0")


class Answer(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Ask = Callable[..., Answer]


def user_of(name: str | None) -> UUID | None:
    return USER if name == "alice" else None


def fastapi_site(**options: Any) -> Ask:
    def current_user(x_user: str | None = Header(None)) -> UUID | None:
        return user_of(x_user)

    api = FastAPI()
    api.include_router(router(current_user=current_user, **options), prefix="/jobcast")
    return asked_by(api)


def fastapi_site_with_coroutine(**options: Any) -> Ask:
    async def current_user(x_user: str | None = Header(None)) -> UUID | None:
        return user_of(x_user)

    api = FastAPI()
    api.include_router(router(current_user=current_user, **options), prefix="/jobcast")
    return asked_by(api)


def starlette_site(**options: Any) -> Ask:
    def current_user(request: Request) -> UUID | None:
        return user_of(request.headers.get("x-user"))

    return asked_by(Starlette(routes=[mount("/jobcast", current_user=current_user, **options)]))


def starlette_site_with_coroutine(**options: Any) -> Ask:
    async def current_user(request: Request) -> UUID | None:
        return user_of(request.headers.get("x-user"))

    return asked_by(Starlette(routes=[mount("/jobcast", current_user=current_user, **options)]))


def asked_by(app: Any) -> Ask:
    async def request(method: str, path: str, user: str, body: bytes, kind: str) -> Answer:
        transport = httpx.ASGITransport(app)
        headers = {"x-user": user, **({"content-type": kind} if kind else {})}
        async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
            response = await client.request(method, path, headers=headers, content=body)
        return Answer(response.status_code, response.headers, response.content)

    return lambda method, path, user="", body=b"", kind="": asyncio.run(
        request(method, path, user, body, kind)
    )


def flask_site(**options: Any) -> Ask:
    app = Flask("site")
    app.register_blueprint(
        blueprint(current_user=lambda: user_of(request.headers.get("x-user")), **options)
    )
    client = app.test_client()

    def ask(method: str, path: str, user: str = "", body: bytes = b"", kind: str = "") -> Answer:
        response = client.open(
            path, method=method, headers={"x-user": user}, data=body, content_type=kind or None
        )
        headers = httpx.Headers(list(response.headers))
        return Answer(response.status_code, headers, response.data)

    return ask


SITES = [
    fastapi_site, fastapi_site_with_coroutine, starlette_site, starlette_site_with_coroutine,
    flask_site,
]  # fmt: skip


@pytest.fixture(params=SITES, ids=lambda site: site.__name__)
def make_site(request: pytest.FixtureRequest) -> Callable[..., Ask]:
    """Return a function that makes a site with the options of its endpoints."""
    make: Callable[..., Ask] = request.param
    return make


def test_user_gets_a_token_of_the_settings(make_site: Callable[..., Ask]) -> None:
    answer = make_site(settings=SETTINGS, ttl=60)("POST", "/jobcast/token", "alice")
    claims = jwt.decode(answer.json["token"], SECRET, ["HS256"])
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert claims["sub"] == str(USER)
    assert claims["exp"] - int(claims["iat"]) == 60
    assert answer.json["url"] == "https://jobs.example.com"
    assert set(answer.json) == {"token", "expires_at", "url"}


@pytest.mark.parametrize("path", ["token", "jobs/42", "jobs/42/events", "jobs/42/cancel"])
def test_client_without_a_user_gets_401(make_site: Callable[..., Ask], path: str) -> None:
    ask = make_site(settings=SETTINGS)
    method = "POST" if path in ("token", "jobs/42/cancel") else "GET"
    answer = ask(method, f"/jobcast/{path}", kind="application/json")
    assert (answer.status, answer.json["code"]) == (401, "signed_out")
    assert answer.headers["content-type"].startswith("application/problem+json")


def test_token_is_only_issued_to_a_post_request(make_site: Callable[..., Ask]) -> None:
    assert make_site(settings=SETTINGS)("GET", "/jobcast/token", "alice").status == 405


def test_events_are_redirected_to_the_server(make_site: Callable[..., Ask]) -> None:
    answer = make_site(settings=SETTINGS)(
        "GET", "/jobcast/jobs/a/b/events?after=x.1&token=t", "alice"
    )
    assert answer.status == 307
    assert answer.headers["location"] == "https://jobs.example.com/jobs/a%2Fb/events?after=x.1"


def test_redirect_has_a_token_if_the_server_reads_tokens_from_urls(
    make_site: Callable[..., Ask],
) -> None:
    settings = structs.replace(SETTINGS, token_in_query=True)
    answer = make_site(settings=settings)("GET", "/jobcast/jobs/42/events?after=x.1", "alice")
    url, _, token = answer.headers["location"].partition("&token=")
    assert url == "https://jobs.example.com/jobs/42/events?after=x.1"
    assert jwt.decode(token, SECRET, ["HS256"])["sub"] == str(USER)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "jobs/%01", "This job does not exist, or you may not follow it."),
        ("GET", "jobs/%01/events", "This job does not exist, or you may not follow it."),
        ("POST", "jobs/%01/cancel", "This job does not exist, or you may not cancel it."),
    ],
    ids=["snapshot", "events", "cancel"],
)
def test_invalid_job_id_is_not_found(
    make_site: Callable[..., Ask], method: str, path: str, detail: str
) -> None:
    ask = make_site(settings=SETTINGS)
    answer = ask(method, f"/jobcast/{path}", "alice", b"{}", "application/json")
    assert (answer.status, answer.json["detail"]) == (404, detail)


def test_snapshot_without_a_server_is_a_bad_gateway(make_site: Callable[..., Ask]) -> None:
    ask = make_site(settings=SETTINGS, internal_url=f"http://127.0.0.1:{free_port()}")
    answer = ask("GET", "/jobcast/jobs/42", "alice")
    assert (answer.status, answer.json["code"]) == (502, "unavailable")


class Incomplete(BaseHTTPRequestHandler):
    """A server whose answers end early, or not at all."""

    status: ClassVar[int]
    may_end: ClassVar[Event]

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(b'{"code":')
        self.wfile.flush()
        self.may_end.wait(TIMEOUT)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=["ends", "waits"])
def incomplete_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Return the URL of a server with incomplete answers."""
    monkeypatch.setattr(endpoint, "PROXY_TIMEOUT", TIMEOUT if request.param == "ends" else 0.2)
    may_end = Event()
    monkeypatch.setattr(Incomplete, "may_end", may_end, raising=False)
    if request.param == "ends":
        may_end.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Incomplete) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        may_end.set()
        server.shutdown()


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_incomplete_answer_is_a_bad_gateway(
    incomplete_server: str, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(Incomplete, "status", status, raising=False)
    asked = Endpoint(SETTINGS, internal_url=incomplete_server)
    for answer in (
        asked.snapshot("alice", "42"),
        asked.cancel("alice", "42", "application/json", b"{}"),
    ):
        assert (answer.status, json.loads(answer.body)["code"]) == (502, "unavailable")


class JobServer(BaseHTTPRequestHandler):
    """A server that knows one job."""

    requests: ClassVar[list[tuple[str, str]]] = []
    bodies: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        self.requests.append((self.path, jwt.decode(token, SECRET, ["HS256"])["sub"]))
        found = self.path.startswith("/jobs/a%2Fb?")
        body = b'{"status":"complete"}' if found else b'{"code":"job_not_found"}'
        self.send_response(200 if found else 404)
        self.send_header(
            "Content-Type", "application/json" if found else "application/problem+json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.bodies.append((self.path, self.headers["Content-Type"], json.loads(body)))
        token = self.headers["Authorization"].removeprefix("Bearer ")
        self.requests.append((self.path, jwt.decode(token, SECRET, ["HS256"])["sub"]))
        found = self.path == "/jobs/a%2Fb/cancel"
        answer = {"ok": True, "outcome": "requested"} if found else {"code": "not_cancellable"}
        content = json.dumps(answer).encode()
        self.send_response(200 if found else 409)
        self.send_header(
            "Content-Type", "application/json" if found else "application/problem+json"
        )
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def job_server() -> Any:
    JobServer.requests.clear()
    JobServer.bodies.clear()
    with HTTPServer(("127.0.0.1", 0), JobServer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_snapshot_is_the_answer_of_the_server(
    make_site: Callable[..., Ask], job_server: str
) -> None:
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    found = ask("GET", "/jobcast/jobs/a/b?logs=3&token=%C3%A9", "alice")
    missing = ask("GET", "/jobcast/jobs/other", "alice")
    assert (found.status, found.json) == (200, {"status": "complete"})
    assert (missing.status, missing.json["code"]) == (404, "job_not_found")
    assert missing.headers["content-type"].startswith("application/problem+json")
    assert JobServer.requests == [
        ("/jobs/a%2Fb?logs=3", str(USER)),
        ("/jobs/other", str(USER)),
    ]


def test_request_for_a_snapshot_cannot_wait(make_site: Callable[..., Ask], job_server: str) -> None:
    """It would occupy one of the site's few workers or threads for a minute."""
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    ask("GET", "/jobcast/jobs/a/b?wait=60&logs=3", "alice")
    assert [path for path, _ in JobServer.requests] == ["/jobs/a%2Fb?logs=3"]


def test_cancel_is_the_answer_of_the_server(make_site: Callable[..., Ask], job_server: str) -> None:
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    kind = "application/json; charset=utf-8"
    done = ask("POST", "/jobcast/jobs/a/b/cancel", "alice", b'{"message":"wrong file"}', kind)
    refused = ask("POST", "/jobcast/jobs/other/cancel", "alice", b"", kind)
    assert (done.status, done.json) == (200, {"ok": True, "outcome": "requested"})
    assert (refused.status, refused.json["code"]) == (409, "not_cancellable")
    assert refused.headers["content-type"].startswith("application/problem+json")
    assert JobServer.requests == [
        ("/jobs/a%2Fb/cancel", str(USER)),
        ("/jobs/other/cancel", str(USER)),
    ]
    assert JobServer.bodies == [
        ("/jobs/a%2Fb/cancel", "application/json", {"message": "wrong file"}),
        ("/jobs/other/cancel", "application/json", {}),
    ]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_page_of_another_site_cannot_cancel_with_the_cookies_of_the_user(
    make_site: Callable[..., Ask], job_server: str, kind: str
) -> None:
    """A browser sends these types across sites without asking the site first."""
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    answer = ask("POST", "/jobcast/jobs/a/b/cancel", "alice", b"{}", kind)
    assert (answer.status, answer.json["code"]) == (415, "invalid_request")
    assert JobServer.requests == []


def test_huge_body_of_a_cancel_is_refused(make_site: Callable[..., Ask], job_server: str) -> None:
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    body = b'{"message":"' + b"x" * 100_000 + b'"}'
    answer = ask("POST", "/jobcast/jobs/a/b/cancel", "alice", body, "application/json")
    assert answer.status == 413
    assert JobServer.requests == []


def test_cancel_cannot_be_a_get_request(make_site: Callable[..., Ask], job_server: str) -> None:
    ask = make_site(settings=SETTINGS, internal_url=job_server)
    ask("GET", "/jobcast/jobs/a/b/cancel", "alice")
    assert JobServer.bodies == []


@pytest.fixture
def redirecting_server(job_server: str) -> Iterator[str]:
    """Return the URL of a server that redirects to another one."""

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{job_server}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Redirect) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_token_of_a_user_is_not_sent_to_the_target_of_a_redirect(
    make_site: Callable[..., Ask], redirecting_server: str
) -> None:
    ask = make_site(settings=SETTINGS, internal_url=redirecting_server)
    answer = ask("GET", "/jobcast/jobs/a/b?logs=3", "alice")
    assert (answer.status, answer.json["code"]) == (502, "unavailable")
    assert JobServer.requests == []


def test_refusal_of_fastapis_dependency_is_kept() -> None:
    def current_user() -> str:
        raise HTTPException(403, "not you")

    api = FastAPI()
    api.include_router(router(current_user=current_user, settings=SETTINGS))
    answer = asked_by(api)("POST", "/token")
    assert (answer.status, answer.json) == (403, {"detail": "not you"})


def test_fastapi_describes_the_endpoints() -> None:
    api = FastAPI()
    api.include_router(router(current_user=lambda: "alice", settings=SETTINGS, tags=["jobs"]))
    paths = api.openapi()["paths"]
    assert set(paths) == {
        "/token", "/jobs/{job_id}", "/jobs/{job_id}/events", "/jobs/{job_id}/cancel",
    }  # fmt: skip
    assert paths["/token"]["post"]["tags"] == ["jobs"]


DRAWN = (
    '<script type="module" src="https://jobs.example.com/jobcast.js" nonce="r4nd0m"></script>\n'
    '<jobcast-job job-id="&quot;&lt;&gt;" base-url="https://jobs.example.com"'
    ' token-url="/jobcast/token" csrf-token="csrf" label="A &amp; B" log cancellable></jobcast-job>'
)
TEMPLATE = '{{ jobcast_progress(job, log=True, label="A & B", cancellable=True) }}'


def test_flask_draws_the_element() -> None:
    app = Flask("site")
    app.jinja_env.globals["csrf_token"] = lambda: "csrf"  # as Flask-WTF does
    app.jinja_env.globals["csp_nonce"] = lambda: "r4nd0m"  # as Flask-Talisman does
    app.register_blueprint(blueprint(current_user=lambda: "alice", settings=SETTINGS))
    with app.test_request_context():
        template = app.jinja_env.from_string(TEMPLATE)
        assert template.render(job='"<>') == DRAWN
        assert template.render(job=None) == ""


def test_flask_draws_the_element_without_csrf_token_and_nonce() -> None:
    app = Flask("site")
    app.register_blueprint(blueprint(current_user=lambda: "alice", settings=SETTINGS))
    with app.test_request_context():
        html = app.jinja_env.from_string("{{ jobcast_progress(job) }}").render(job="42")
    assert html == PLAIN


PLAIN = (
    '<script type="module" src="https://jobs.example.com/jobcast.js"></script>\n'
    '<jobcast-job job-id="42" base-url="https://jobs.example.com" token-url="/jobcast/token">'
    "</jobcast-job>"
)


def site_with_pages(kind: str, context: dict[str, Any]) -> Any:
    """Return an application with the page ``/page`` for the job of its query."""
    templates = Jinja2Templates(env=Environment(autoescape=True))
    add_jobcast_progress(templates.env, settings=SETTINGS)
    template = templates.env.from_string(TEMPLATE if context else "{{ jobcast_progress(job) }}")

    async def page(request: Request) -> HTMLResponse:
        job = request.query_params.get("job")
        request.state.csp_nonce = context.get("nonce_of_request")
        return HTMLResponse(template.render(context, request=request, job=job))

    if kind == "starlette":
        endpoints = mount("/jobcast", current_user=lambda _: "alice", settings=SETTINGS)
        return Starlette(routes=[endpoints, Route("/page", page)])
    api = FastAPI()
    api.include_router(router(current_user=lambda: "alice", settings=SETTINGS), prefix="/jobcast")
    api.add_route("/page", page)
    return api


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
@pytest.mark.parametrize(
    "context",
    [
        {"csrf_token": "csrf", "csp_nonce": "r4nd0m"},
        {"csrf_token": lambda: "csrf", "csp_nonce": lambda: "r4nd0m"},
        {"csrf_token": "csrf", "nonce_of_request": "r4nd0m"},
    ],
    ids=["values", "functions", "request"],
)
def test_jinja_draws_the_element(kind: str, context: dict[str, Any]) -> None:
    ask = asked_by(site_with_pages(kind, context))
    assert ask("GET", "/page?job=%22%3C%3E").body.decode() == DRAWN
    assert ask("GET", "/page").body == b""


@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
def test_jinja_draws_the_element_without_csrf_token_and_nonce(kind: str) -> None:
    ask = asked_by(site_with_pages(kind, {}))
    assert ask("GET", "/page?job=42").body.decode() == PLAIN


@pytest.mark.parametrize(
    ("template", "context"),
    [
        ("{{ jobcast_progress(job) }}", {}),
        ("{% from 'macros' import bar %}{{ bar(job) }}", {"request": Request({"type": "http"})}),
    ],
    ids=["rendered without", "macro imported without context"],
)
def test_template_without_a_request_raises_an_error_that_says_what_to_pass(
    template: str, context: dict[str, Any]
) -> None:
    macros = "{% macro bar(job) %}{{ jobcast_progress(job) }}{% endmacro %}"
    env = Environment(autoescape=True, loader=DictLoader({"macros": macros}))
    add_jobcast_progress(env, settings=SETTINGS)
    with pytest.raises(TypeError, match=r"TemplateResponse\(request, .* with context %}"):
        env.from_string(template).render(context, job="42")


def test_jinja_finds_the_endpoint_of_a_mounted_application() -> None:
    api = site_with_pages("fastapi", {})
    ask = asked_by(create_app(SETTINGS, routes=[Mount("/tools", app=api)]))
    assert 'token-url="/tools/jobcast/token"' in ask("GET", "/tools/page?job=42").body.decode()
