"""The private parts of other libraries that jobcast uses, with one test for each.

The name of a failing test says which library has changed. The test calls the function to adapt.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest
import socketio
from billiard.pool import Pool
from billiard.process import BaseProcess as Process
from celery import VERSION, Celery, Task, _state
from celery.app.task import Context
from celery.backends.mongodb import MongoBackend
from celery.canvas import _chain, _chord, chain, chord
from celery.concurrency.asynpool import SCHED_STRATEGIES, SCHED_STRATEGY_FAIR, AsynPool
from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool
from celery.utils import log
from celery.worker import state
from celery.worker.request import Request
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from engineio.async_socket import AsyncSocket
from jwt.algorithms import HMACAlgorithm
from kombu.utils.objects import cached_property as kombu_cached_property
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from jobcast.celery.apps import (
    active_apps,
    defines_task,
    enter_call,
    is_in_signal_handler,
    is_inside_call,
)
from jobcast.celery.fork_guard import replace_property_locks
from jobcast.celery.pools import can_terminate
from jobcast.celery.termination import forget_termination, replace_child
from jobcast.realtime.connection.engineio import _awaits_attachments, _replace_async
from jobcast.realtime.connection.uvicorn import forget_handshake
from jobcast.token_decoder import CanonicalSegments, TokenDecoder


def public_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def celery_app() -> Celery:
    app = Celery("privates", broker="memory://", set_as_current=False)

    @app.task(name="privates.task", shared=False)
    def task() -> None: ...

    return app


def test_celery_lists_its_active_applications(celery_app: Celery) -> None:
    assert celery_app in active_apps()


def test_active_apps_falls_back_to_the_current_application(
    celery_app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(_state, "_get_active_apps")
    assert len(active_apps()) == 1


def test_celery_marks_its_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_in_signal_handler()
    with log.in_sighandler():
        assert is_in_signal_handler()
    assert not is_in_signal_handler()
    monkeypatch.delattr(log, "_in_sighandler")
    assert not is_in_signal_handler()


def test_celery_lists_tasks_without_finalizing_the_application(
    celery_app: Celery,
) -> None:
    celery_app.finalize()
    assert defines_task(celery_app, "privates.task")
    fresh = Celery("fresh", broker="memory://", set_as_current=False)
    assert not defines_task(fresh, "privates.task")
    assert not fresh.finalized


def test_defines_task_falls_back_to_false() -> None:
    assert not defines_task(SimpleNamespace(), "privates.task")


def test_celery_marks_a_request_during_its_call(celery_app: Celery) -> None:
    inside: list[bool] = []

    class Outer(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            inside.append(is_inside_call(self.request))
            enter_call(self.request)
            inside.append(is_inside_call(self.request))
            return super().__call__(*args, **kwargs)

    @celery_app.task(name="privates.outer", base=Outer, shared=False)
    def outer() -> None: ...

    celery_app.tasks["privates.outer"].apply(throw=True)
    assert inside[-1]
    assert not is_inside_call(Context())
    assert hasattr(Context, "_protected"), "celery.app.task.Context has no _protected any more"


def test_celery_names_the_classes_of_chains_and_chords(celery_app: Celery) -> None:
    task = celery_app.tasks["privates.task"]
    assert isinstance(chain(task.s(), task.s()), _chain)
    assert isinstance(chord([task.s()], task.s()), _chord)


async def test_engineio_keeps_its_asgi_functions_in_a_dictionary() -> None:
    eio = socketio.AsyncServer(async_mode="asgi").eio
    assert {"websocket", "translate_request"} <= eio._async.keys()
    own = object()
    _replace_async(eio, {"websocket": own})
    assert eio._async["websocket"] is own
    assert "translate_request" in eio._async


def test_replace_async_changes_nothing_without_that_dictionary(
    caplog: pytest.LogCaptureFixture,
) -> None:
    eio = SimpleNamespace()
    _replace_async(eio, {"websocket": object()})
    assert vars(eio) == {}
    assert "version of python-engineio is not supported" in caplog.text


async def test_engineio_creates_queues_by_the_method_that_jobcast_replaces() -> None:
    eio = socketio.AsyncServer(async_mode="asgi").eio
    own = object()
    eio.create_queue = lambda *_, **__: own
    assert AsyncSocket(eio, "a").queue is own


async def test_socketio_keeps_packets_whose_attachments_are_missing() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    assert not _awaits_attachments(sio, "a")
    await sio.manager.connect("a", "/")
    await sio._handle_eio_message("a", '51-["picture",{"_placeholder":true,"num":0}]')
    assert _awaits_attachments(sio, "a")
    assert not _awaits_attachments(SimpleNamespace(), "a")


def test_pyjwt_checks_each_secret_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    check = HMACAlgorithm.prepare_key

    def prepare_key(algorithm: HMACAlgorithm, key: str | bytes) -> bytes:
        checked.append(key)
        return check(algorithm, key)

    monkeypatch.setattr(HMACAlgorithm, "prepare_key", prepare_key)
    secrets = ["a" * 32, "b" * 32]
    tokens = [jwt.encode({"sub": "alice", "exp": 1 << 32}, secret) for secret in secrets]
    checked.clear()
    decoder = TokenDecoder(verifies_audience=False)
    for token, secret in zip(tokens * 3, secrets * 3, strict=True):
        assert decoder.decode(token, secret, algorithms=["HS256"])["sub"] == "alice"
        with pytest.raises(jwt.InvalidSignatureError):
            decoder.decode(token, secret[::-1] + "!", algorithms=["HS256"])
    assert sorted(set(checked)) == sorted(checked)


@pytest.mark.parametrize(
    "secret", ["", public_pem(), '{"kty": "oct", "k": "eA"}'], ids=["empty", "PEM", "JWK"]
)
def test_pyjwt_refuses_a_secret_that_is_a_key_each_time(secret: str) -> None:
    token = jwt.encode({"sub": "alice", "exp": 1 << 32}, "a" * 32)
    decoder = TokenDecoder(verifies_audience=False)
    for _ in range(3):
        with pytest.raises(jwt.InvalidKeyError):
            decoder.decode(token, secret, algorithms=["HS256"])


def test_pyjwt_reads_segments_with_the_method_that_jobcast_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = jwt.encode({"sub": "alice", "exp": 1 << 32}, "a" * 32)

    def refuse(segment: bytes, name: str) -> bytes:
        raise AssertionError(f"PyJWT reads the {name} itself")

    monkeypatch.setattr(jwt.PyJWS, "_decode_base64url_segment", staticmethod(refuse))
    decoder = TokenDecoder(verifies_audience=False)
    assert decoder.decode(token, "a" * 32, algorithms=["HS256"])["sub"] == "alice"


@pytest.mark.parametrize(
    "segment",
    [
        b"", b"e30", b"eyJhIjoxfQ", b"eyJhIjoxfQ==", b"eyJhIjoxfQ=", b"eyJhIjoxfR", b"eyJhIjoxfQ\n",
        b"eyJh IjoxfQ", b"eyJh!IjoxfQ", b"e", b"e====", b"=", b"-_-_", b"+/+/", b"eyJhIjoxf\xff",
    ],
)  # fmt: skip
def test_segments_are_read_as_pyjwt_reads_them(segment: bytes) -> None:
    def read(reader: jwt.PyJWS) -> bytes | str:
        try:
            return reader._decode_base64url_segment(segment, "payload")
        except jwt.DecodeError as exc:
            return str(exc)

    assert read(CanonicalSegments()) == read(jwt.PyJWS())


def test_redis_connections_read_from_a_stream() -> None:
    import redis.asyncio

    connection = redis.asyncio.Connection()
    assert hasattr(connection, "_reader"), "redis.asyncio.Connection has no _reader any more"
    assert connection._reader is None or isinstance(connection._reader, asyncio.StreamReader)


def test_forget_handshake_ignores_a_protocol_without_its_messages() -> None:
    forget_handshake(cast("WebSocketsSansIOProtocol", SimpleNamespace()))


def test_the_server_imports_without_uvicorn() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None; import jobcast.realtime; "
        "from jobcast.settings import Settings; "
        "jobcast.realtime.create_app(Settings(url='memory://', jwt_secret='x' * 32))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], text=True, capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_celery_requests_have_the_attributes_of_their_progress() -> None:
    """``JobRequest`` reads whether the pool has a task, and whether its revocation is announced."""
    for name in ("_apply_result", "_already_cancelled", "_already_revoked", "time_start"):
        assert name in vars(Request)
    for name in ("_connection_errors", "_context"):
        assert hasattr(Request, name)
    # Celery 5.7 keeps a list of the requests that wait for a timer.
    assert hasattr(state, "task_scheduled") == hasattr(Request, "_eta_timer_entry")
    assert hasattr(state, "task_scheduled") == (VERSION >= (5, 7))
    parameters = signature(Request._announce_revoked).parameters
    assert [*parameters] == ["self", "reason", "terminated", "signum", "expired"]


def test_the_prefork_pool_has_the_strategy_by_which_a_child_can_be_replaced() -> None:
    assert "_pool" in vars(BasePool)
    assert TaskPool.Pool is AsynPool
    assert SCHED_STRATEGIES[None] == SCHED_STRATEGY_FAIR
    assert "sched_strategy" in AsynPool.__init__.__code__.co_names
    killed: list[Any] = []
    fair = SimpleNamespace(sched_strategy=SCHED_STRATEGY_FAIR)
    for pool in (SimpleNamespace(_pool=fair), SimpleNamespace(), SimpleNamespace(_pool=None)):
        pool.terminate_job = lambda pid, _: killed.append(pid)
        assert replace_child(pool, 1) == (getattr(pool, "_pool", None) is fair)
    assert killed == [1]


def test_billiard_marks_a_terminated_child_until_the_marks_are_cleared() -> None:
    class Child(Process):
        pid = 1

    child, marks = Child(), ("_job_terminated", "_controlled_termination")
    pool = SimpleNamespace(_pool=SimpleNamespace(_pool=[child]))
    pool._pool._process_by_pid = partial(Pool._process_by_pid, pool._pool)
    assert {*marks} < {*Pool.terminate_job.__code__.co_names}
    for name in marks:
        setattr(child, name, True)
    for other in (SimpleNamespace(), SimpleNamespace(_pool=None)):
        forget_termination(other, 1)
    forget_termination(pool, 2)
    assert all(getattr(child, name) for name in marks)
    forget_termination(pool, 1)
    assert not any(getattr(child, name) for name in marks)


def test_only_pools_that_terminate_runs_override_the_method_of_their_base() -> None:
    assert not can_terminate(BasePool())
    assert can_terminate(SimpleNamespace(terminate_job=print))


def test_kombu_computes_cached_properties_under_a_lock_that_can_be_replaced() -> None:
    class Backend(MongoBackend):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None: ...

        @kombu_cached_property  # type: ignore[untyped-decorator, unused-ignore]
        def client(self) -> object:
            used.append(properties["client"].lock)
            assert used[-1]._is_owned()
            return object()

        @kombu_cached_property  # type: ignore[untyped-decorator, unused-ignore]
        def lockless(self) -> object: ...

    used: list[Any] = []
    properties: Any = vars(Backend)
    del properties["lockless"].lock
    former = vars(MongoBackend)["collection"].lock
    for _ in range(2):
        assert Backend().client
        replace_property_locks()
    assert len({*used}) == 2
    assert vars(MongoBackend)["collection"].lock is not former
    assert not hasattr(properties["lockless"], "lock")
