from __future__ import annotations

import socket
from collections.abc import Callable

import jwt
import pytest
from click.testing import CliRunner, Result

from jobcast.cli.main import main
from jobcast.server.serve import check_address
from jobcast.settings import Settings
from jobcast.tokens import TokenVerifier
from tests.support import SECRET, free_port
from tests.support.key_server import pems, private_key

SERVER = {"JOBCAST_URL": "memory://", "JOBCAST_JWT_SECRET": SECRET}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> object:
    for name in ("JOBCAST_TOKEN", "JOBCAST_URL", "JOBCAST_JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **env: str) -> Result:
        result = CliRunner().invoke(main, arguments, env=env)
        assert "Traceback" not in result.output
        return result

    return run


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (["serve"], {}, "Error: JOBCAST_JWT_SECRET is not set"),
        (["serve"], {"JOBCAST_PORT": "http"}, "Error: JOBCAST_PORT should be a port number"),
        (["serve", "--port", "70000"], {}, "70000 is not in the range"),
        (["serve"], {"JOBCAST_JWT_SECRET": "short"}, "at least 32 bytes"),
        (
            ["serve"],
            {"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_AUTHORIZE": "no.such:rule"},
            "JOBCAST_AUTHORIZE names no.such:rule, which cannot be imported",
        ),
        (
            ["serve"],
            {
                "JOBCAST_JWT_SECRET": SECRET,
                "JOBCAST_AUTHORIZE": "tests.unit.realtime.test_authorization:former",
            },
            "which takes (subject, job_id, owner); a rule takes (subject, action, target)",
        ),
        (["watch"], {}, "Missing argument 'ID...'"),
        (["watch", "a"], {}, "to sign a token, set JOBCAST_JWT_SECRET"),
        (["watch", "a b", "--token", "t"], {}, "Error: a job id has 1 to 128 characters"),
        (
            ["watch", "a", "--token", "t", "--url", "http://127.0.0.1:9"],
            {},
            "Error: the server at http://127.0.0.1:9 cannot be reached",
        ),
        (
            ["watch", "a", "--token", "t", "--url", "nonsense"],
            {},
            "Invalid value for --url: the server should be a URL such as http://127.0.0.1:8000",
        ),
        (["ls"], {}, "to sign a token, set JOBCAST_JWT_SECRET"),
        (["top"], {}, "to sign a token, set JOBCAST_JWT_SECRET"),
        (["top", "--token", "t"], {}, "Error: top needs a terminal for its display and its keys"),
        (
            ["ls", "--feed", "mine"],
            {"JOBCAST_JWT_SECRET": SECRET},
            "Invalid value for --feed: `mine` needs a token",
        ),
        (
            ["ls", "--feed", "yours"],
            {},
            "Invalid value for '--feed': a feed is mine, all, owner:SUBJECT or tag:TAG, not",
        ),
        (["ls", "--since", "yesterday"], {}, "Invalid value for '--since': give 30m, 2h or 7d"),
        (["ls", "--since", "999999w"], {}, "Invalid value for '--since': give 30m, 2h or 7d"),
        (["ls", "--limit", "10001"], {}, "10001 is not in the range"),
        (["ls", "--tag", "a\nb", "--token", "t"], {}, "the request for a feed is not valid"),
        (
            ["ls", "--token", "t", "--url", "http://127.0.0.1:9"],
            {},
            "Error: the server at http://127.0.0.1:9 cannot be reached",
        ),
        (
            ["top", "--token", "t", "--url", "nonsense"],
            {},
            "Invalid value for --url: the server should be a URL such as http://127.0.0.1:8000",
        ),
        (["token"], {}, "to sign a token, set JOBCAST_JWT_SECRET"),
        (
            ["token", "--sub", ""],
            {"JOBCAST_JWT_SECRET": SECRET},
            "Invalid value for --sub: a token needs a subject",
        ),
        (
            ["token"],
            {"JOBCAST_JWT_SECRET": "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYI"},
            "Error: JOBCAST_JWT_SECRET should be a secret, not a key",
        ),
        (["init", "/proc/x"], {}, "Error: /proc/x cannot be written: "),
        (["token", "--ttl", "0"], {}, "0 is not in the range"),
        (
            ["token", "--ttl", "61"],
            {"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_MAX_LIFETIME": "60"},
            "JOBCAST_JWT_MAX_LIFETIME allows 60 seconds",
        ),
        (["token", "--job", "a b"], {"JOBCAST_JWT_SECRET": SECRET}, "a job id has 1 to 128"),
        (["disconnect"], {}, "give either --sub, a subject, or --jti, the id of a token"),
        (["disconnect", "--sub", "a", "--jti", "b"], {}, "give either --sub"),
        (
            ["disconnect", "--sub", "a"],
            {"JOBCAST_URL": "redis://127.0.0.1:9"},
            "Error: could not revoke: redis://127.0.0.1:9 cannot be reached (",
        ),
        (
            ["doctor", "--url", "127.0.0.1:8000"],
            {},
            "Invalid value for --url: the server should be a URL such as http://127.0.0.1:8000, not"
            " '127.0.0.1:8000'",
        ),
        (
            ["doctor", "--origin", "app.example.com"],
            {},
            "Invalid value for --origin: an origin is a scheme, a host and perhaps a port",
        ),
        (
            ["disconnect", "--sub", "a"],
            {"JOBCAST_URL": "memory://"},
            "Error: JOBCAST_URL is memory://, which no other process can reach: ",
        ),
        (["nonsense"], {}, "No such command 'nonsense'"),
        (["demo"], {"JOBCAST_URL": "localhost"}, "JOBCAST_URL should be a URL"),
    ],
)
def test_errors_are_reported_in_one_line(
    run: object, arguments: list[str], env: dict[str, str], message: str
) -> None:
    result = run(*arguments, **env)  # type: ignore[operator]
    assert result.exit_code == 2
    assert message in result.output
    assert SECRET not in result.output
    if result.output.startswith("Error"):
        assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_port_in_use_is_reported_in_one_line(run: object, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port), "--workers", workers, **SERVER)  # type: ignore[operator]
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == (
        f"Error: cannot listen on 127.0.0.1, port {port}: another process listens there; choose"
        " another port with --port or JOBCAST_PORT"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1"])
def test_check_address_accepts_free_ports(host: str) -> None:
    check_address(host, free_port())


def test_token_command_prints_only_the_token(run: object) -> None:
    env = {"JOBCAST_JWT_SECRET": SECRET, "JOBCAST_JWT_AUDIENCE": "jobs"}
    result = run("token", "--sub", "bob", "--job", "a", "--job", "b", "--ttl", "60", **env)  # type: ignore[operator]
    assert result.exit_code == 0
    claims = jwt.decode(result.output.strip(), SECRET, ["HS256"], audience="jobs")
    assert (claims["sub"], claims["jobs"]) == ("bob", ["a", "b"])
    assert claims["exp"] - int(claims["iat"]) == 60
    every = run("token", "--all-jobs", **env)  # type: ignore[operator]
    assert jwt.decode(every.output.strip(), SECRET, ["HS256"], audience="jobs")["jobs"] == ["*"]


def test_token_command_grants_actions_and_feeds(run: Callable[..., Result]) -> None:
    arguments = [
        "--job",
        "a",
        "--can",
        "cancel",
        "--can",
        "list",
        "--feed",
        "tag:x",
        "--feed",
        "all",
    ]
    result = run("token", *arguments, JOBCAST_JWT_SECRET=SECRET)
    claims = jwt.decode(result.output.strip(), SECRET, ["HS256"])
    granted = {"jobs": ["a"], "can": ["cancel", "list"], "feeds": ["tag:x", "all"]}
    assert {name: claims[name] for name in granted} == granted


def test_token_command_signs_with_the_first_secret(run: object) -> None:
    secrets = f"new={'n' * 32} old={'o' * 32}"
    env = {"JOBCAST_JWT_SECRETS": secrets, "JOBCAST_JWT_MAX_LIFETIME": "60"}
    token = run("token", "--jti", "one", **env).output.strip()  # type: ignore[operator]
    claims = jwt.decode(token, "n" * 32, ["HS256"])
    assert claims["jti"] == "one"
    assert claims["exp"] - int(claims["iat"]) == 60
    assert jwt.get_unverified_header(token)["kid"] == "new"


def test_version_and_help(run: object) -> None:
    assert "jobcast" in run("--version").output  # type: ignore[operator]
    shown = run("-h").output  # type: ignore[operator]
    for command in ("demo", "disconnect", "doctor", "init", "serve", "token", "watch"):
        assert f"  {command}" in shown


def test_init_refuses_a_directory_that_is_not_empty(run: object, tmp_path: object) -> None:
    result = run("init", f"{tmp_path}/shop")  # type: ignore[operator]
    assert result.exit_code == 0
    assert "tasks/people.py" in result.output
    again = run("init", f"{tmp_path}/shop")  # type: ignore[operator]
    assert again.exit_code == 2
    assert again.output.startswith("Error: ")


async def test_private_key_signs_the_token(run: Callable[..., Result]) -> None:
    private, public = pems(private_key())
    result = run("token", "--sub", "bob", JOBCAST_JWT_PRIVATE_KEY=private)
    subject = await TokenVerifier(Settings(jwt_public_key=public)).verify(result.output.strip())
    assert subject.sub == "bob"
