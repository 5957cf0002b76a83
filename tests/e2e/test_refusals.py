"""Refused tokens and requests: codes, surviving connections and logs without tracebacks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
import socketio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from socketio.exceptions import ConnectionError as Refused

from jobcast.transports import open_publisher
from tests.conftest import Valkey
from tests.support import SECRET, Server, eventually, following, new_id, running

Token = Callable[..., str]

DAY: Final = 24 * 3600  # seconds; the tokens are made long before the last test uses them


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    standard = {"sub": "alice", "exp": now + DAY, "aud": "jobs", "iss": "https://auth.test"}
    return {k: v for k, v in {**standard, **changes}.items() if v is not None}


def signed(key: Any = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[Server]:
    """A server that requires an audience and an issuer."""
    log_path = tmp_path_factory.mktemp("strict") / "server.log"
    env = {"JOBCAST_JWT_AUDIENCE": "jobs", "JOBCAST_JWT_ISSUER": "https://auth.test"}
    with running(Server(log_path, valkey.url, env)) as process:
        yield process.ready()
        assert "Traceback" not in process.log
        assert SECRET not in process.log


async def refusal(url: str, auth: Any) -> dict[str, Any]:
    """Return the ``connect_error`` of a refused connection."""
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    errors: list[dict[str, Any]] = []
    client.on("connect_error", errors.append)
    with pytest.raises(Refused):
        await client.connect(url, auth=auth, transports=["websocket"])
    return errors[0]


PAST, FUTURE = int(time.time()) - 600, int(time.time()) + DAY // 2


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        (None, "token_missing"),
        ({}, "token_missing"),
        ({"token": ""}, "token_missing"),
        ({"jwt": "x"}, "token_missing"),
        ({"token": "garbage"}, "token_invalid"),
        ({"token": 42}, "token_invalid"),
        ({"token": ["x"]}, "token_invalid"),
        ({"token": "x" * 20_000}, "token_invalid"),
        ("a string", "token_invalid"),
        ([1, 2], "token_invalid"),
        ({"token": signed("another secret that is long enough too")}, "token_signature"),
        ({"token": signed(None, "none")}, "token_algorithm"),
        ({"token": signed(SECRET + SECRET, "HS512")}, "token_algorithm"),
        ({"token": signed(exp=PAST)}, "token_expired"),
        ({"token": signed(nbf=FUTURE)}, "token_not_yet_valid"),
        ({"token": signed(iat=FUTURE)}, "token_not_yet_valid"),
        ({"token": signed(aud="others")}, "token_audience"),
        ({"token": signed(aud=None)}, "token_audience"),
        ({"token": signed(iss="https://evil.test")}, "token_issuer"),
        ({"token": signed(iss=None)}, "token_issuer"),
        ({"token": signed(exp=None)}, "token_claims"),
        ({"token": signed(sub=None)}, "token_claims"),
        ({"token": signed(sub="")}, "token_claims"),
    ],
)
async def test_connection_is_refused_with_a_code(strict: Server, auth: Any, code: str) -> None:
    error = await refusal(strict.url, auth)
    assert error["data"]["code"] == code
    assert "garbage" not in str(error)


async def test_good_token_is_accepted(strict: Server) -> None:
    async with following(strict.url, signed()) as alice:
        assert (await alice.join(new_id()))["code"] == "job_not_found"


async def test_claims_of_invalid_types_are_refused(strict: Server) -> None:
    # jwt.encode does not encode such claims.
    invalid_claims: list[dict[str, Any]] = [
        {"exp": "soon"}, {"exp": 1e400}, {"exp": 1e15}, {"exp": 2**64}, {"exp": -1}, {"nbf": []},
        {"exp": float("nan")}, {"sub": 7.5}, {"sub": True}, {"sub": {"a": 1}},
        {"jobs": "42"}, {"jobs": [None]}, {"can": "cancel"}, {"can": [1]}, {"feeds": {"all": True}},
    ]  # fmt: skip
    for invalid in invalid_claims:
        payload = json.dumps(claims(**invalid)).encode()
        token = jwt.PyJWS().encode(payload, SECRET, algorithm="HS256")
        error = await refusal(strict.url, {"token": token})
        assert error["data"]["code"] == "token_claims", invalid
        async with following(strict.url, signed()) as alice:
            assert (await alice.request("refresh_token", {"token": token}))[
                "code"
            ] == "token_claims"
            # The refused token has no effect: the connection keeps its current one.
            assert (await alice.request("refresh_token", {"token": signed()}))["ok"]


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ],
)
async def test_public_key_verifies_tokens_but_is_no_hmac_secret(
    valkey: Valkey, tmp_path: Path, algorithm: str, private: Any
) -> None:
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    env = {"JOBCAST_JWT_SECRET": "", "JOBCAST_JWT_PUBLIC_KEY": pem.decode()}
    with running(Server(tmp_path / "log", valkey.url, env)) as process:
        process.ready()
        async with following(process.url, signed(private, algorithm)):
            pass
        # The classic attack uses the public key as an HMAC secret.
        header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT"}')
        body = jwt.utils.base64url_encode(json.dumps(claims()).encode())
        mac = jwt.get_algorithm_by_name("HS256").sign(header + b"." + body, pem)
        forged = b".".join([header, body, jwt.utils.base64url_encode(mac)]).decode()
        assert (await refusal(process.url, {"token": forged}))["data"]["code"] == "token_algorithm"
        assert "Traceback" not in process.log


async def test_foreign_and_missing_jobs_get_the_same_answer(
    server: Server, valkey: Valkey, token: Token
) -> None:
    bobs = new_id()
    publish(valkey.url, bobs)
    async with following(server.url, token("alice", jobs=["another"])) as alice:
        forbidden, missing = await alice.join(bobs), await alice.join(new_id())
        assert forbidden == missing
        assert forbidden["ok"] is False
        assert forbidden["code"] == "job_not_found"
        # A job without an owner is not public.
        assert alice.transcript.events == []
    for everything in (["*"], [bobs]):
        async with following(server.url, token("carol", jobs=everything)) as carol:
            assert (await carol.join(bobs))["ok"]


def publish(url: str, job_id: str) -> None:
    publisher = open_publisher(url)
    publisher.emit("job_log", {"level": "info", "message": "hello"}, room=f"job_{job_id}")
    publisher.close()


MALFORMED: list[tuple[Any, ...]] = [
    (),
    (None,),
    ({},),
    ({"job_id": 42},),
    ({"job_id": ["a"]},),
    ({"job_id": None},),
    ({"job_id": ""},),
    ({"job_id": "x" * 10_000},),
    ({"job_id": "a\nb"},),
    ({"job_id": "a\n"},),
    ({"job_id": "a\x00"},),
    ({"job_id": "a b"},),
    ({"job_id": "{a}"},),
    ({"job_id": "ü"},),
    ({"job_id": "a", "after": 7},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": -1}},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": 2**53}},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": 2**63}},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": 2**64}},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": 10**400}},),
    ({"job_id": "a", "after": {"epoch": "e", "seq": 1.5}},),
    ({"job_id": "a", "after": {"epoch": "e"}},),
    ({"job_id": "a", "after": {"epoch": "e" * 1000, "seq": 1}},),
    ("a",),
    (["a"],),
    (42,),
]


async def test_malformed_request_is_answered_and_the_connection_stays(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    publish(valkey.url, job_id)
    async with following(server.url, token(jobs=["*"])) as alice:
        for payload in MALFORMED:
            for event in ("join_job", "leave_job"):
                if event == "leave_job" and "after" in str(payload):
                    continue
                answer = await alice.request(event, *payload)
                assert answer["ok"] is False, payload
                assert answer["code"] == "invalid_request", payload
                assert answer["message"]
        answer = await alice.client.call("join_job", ({"job_id": "a"}, "and", "more"))
        assert answer["ok"] is True
        for bad in ({}, {"token": ""}, {"token": 1}):
            assert (await alice.request("refresh_token", bad))["code"] == "invalid_request"
        assert (await alice.join(job_id))["ok"]
        await eventually(lambda: alice.transcript.of(job_id, "job_log"), "log line")
    assert "Traceback" not in server.log


async def test_invalid_packet_closes_only_its_own_connection(
    server: Server, valkey: Valkey, token: Token
) -> None:
    async with following(server.url, token()) as other:
        for garbage in (
            "42", "42{}", '42["join_job"', "42[]", "42[1]", "42[{}]", "4x", "49", "45-[", '44"x"',
            "4" + "[" * 5000, '451-["a",{"_placeholder":true,"num":0}]',
        ):  # fmt: skip
            async with following(server.url, token()) as client:
                await client.client.eio.ws.send_str(garbage)
                answer = await other.join(new_id())
                assert answer["code"] == "job_not_found"
        assert other.client.connected
    assert "Traceback" not in server.log


async def test_client_without_acknowledgements_is_served(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    publish(valkey.url, job_id)
    async with following(server.url, token(jobs=["*"])) as alice:
        await alice.client.emit("join_job")
        await alice.client.emit("join_job", {"job_id": job_id})
        await eventually(lambda: alice.transcript.of(job_id, "job_log"), "log line")
    assert "Traceback" not in server.log


async def test_connection_ends_when_its_token_expires_unless_renewed(
    server: Server, token: Token
) -> None:
    async with (
        following(server.url, token("alice", ttl=12)) as renewed,
        following(server.url, token("bob", ttl=12)) as expired,
    ):
        await eventually(lambda: expired.transcript.events, "warning")
        [(name, warning)] = expired.transcript.events
        assert name == "token_expiring"
        assert warning["expires_at"]
        answer = await renewed.request("refresh_token", {"token": token("bob")})
        assert answer["code"] == "token_subject"
        answer = await renewed.request("refresh_token", {"token": token("alice", ttl=3600)})
        assert answer["ok"] is True
        await eventually(lambda: not expired.client.connected, "end of the connection")
        assert renewed.client.connected
        assert (await renewed.leave("any"))["ok"]


async def test_connects_joins_refusals_and_disconnects_are_logged_without_the_token(
    valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    job_id, secret_token = new_id(), token("zoe\nforged", jobs=["*"])
    # A separate server, because refusal lines are rate-limited and other tests cause many.
    with running(Server(tmp_path / "server.log", valkey.url)) as server:
        async with following(server.ready().url, secret_token) as zoe:
            await zoe.join(job_id)
            await zoe.leave(job_id)
        await refusal(server.url, {"token": token("yan", ttl=-60)})
        await eventually(lambda: "token_expired" in server.log, "log line")
        await eventually(lambda: "disconnected" in _last(server.log, "zoe"), "log line")
    lines = [line for line in server.log.splitlines() if "zoe" in line]
    # One line each, although the subject contains a line break.
    assert [word for line in lines for word in line.split() if word in WORDS] == WORDS
    assert secret_token not in server.log
    assert "forged" not in [line[:6] for line in server.log.splitlines()]


WORDS = ["connected", "joined", "left", "disconnected"]


def _last(log: str, word: str) -> str:
    return next((line for line in reversed(log.splitlines()) if word in line), "")


async def test_foreign_origin_is_refused_and_a_listed_one_is_not(
    server: Server, valkey: Valkey, token: Token, tmp_path: Path
) -> None:
    async def can_connect(url: str, origin: str) -> bool:
        try:
            async with following(url, token(), headers={"Origin": origin}):
                return True
        except Refused:
            return False

    assert await can_connect(server.url, server.url)
    assert not await can_connect(server.url, "https://evil.example")
    env = {"JOBCAST_CORS_ORIGINS": "https://app.example.com"}
    with running(Server(tmp_path / "log", valkey.url, env)) as process:
        process.ready()
        assert await can_connect(process.url, "https://app.example.com")
        assert not await can_connect(process.url, "https://evil.example")


async def test_silent_connection_is_closed(server: Server) -> None:
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False).eio
    await client.connect(server.url, transports=["websocket"], engineio_path="socket.io")
    assert client.state == "connected"
    await eventually(lambda: client.state != "connected", "end of the connection")
    await client.disconnect()


async def test_joins_of_a_connection_are_bounded(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    env = {"JOBCAST_MAX_JOBS": "2"}
    with running(Server(tmp_path / "log", valkey.url, env)) as process:
        process.ready()
        a, b, c = new_id(), new_id(), new_id()
        async with following(process.url, token(jobs=["*"])) as alice:
            assert (await alice.join(a))["ok"]
            assert (await alice.join(b))["ok"]
            assert (await alice.join(c))["code"] == "too_many_jobs"
            assert (await alice.join(b))["ok"]
            await alice.leave(a)
            assert (await alice.join(c))["ok"]


async def test_custom_rule_replaces_the_default(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    rules = tmp_path / "rules.py"
    rules.write_text(
        "import time\n"
        "def plain(subject, action, target):\n"
        "    time.sleep(0.01)\n"
        "    return subject.claims.get('role') == 'admin' or target.owner == subject.sub\n"
        "async def asynchronous(subject, action, target):\n"
        "    return target.id.startswith(subject.sub)\n"
        "def broken(subject, action, target):\n"
        "    raise RuntimeError('database is down')\n"
    )
    admin = jwt.encode(claims(sub="root", role="admin"), SECRET, algorithm="HS256")
    for rule, subject_token, job_id, code in [
        ("plain", admin, new_id(), None),
        ("plain", token("alice", jobs=["*"]), new_id(), "job_not_found"),
        ("asynchronous", token("alice"), new_id("alice"), None),
        ("asynchronous", token("alice"), new_id("bob"), "job_not_found"),
        ("broken", token("alice"), new_id(), "internal_error"),
    ]:
        env = {"JOBCAST_AUTHORIZE": f"rules:{rule}", "PYTHONPATH": str(tmp_path)}
        with running(Server(tmp_path / f"{rule}.log", valkey.url, env)) as process:
            process.ready()
            async with following(process.url, subject_token) as client:
                assert (await client.join(job_id)).get("code") == code
                assert client.client.connected
