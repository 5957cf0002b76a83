"""The same scenarios under every ASGI server, with and without direct writes of frames."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest

from jobcast.events import JobComplete, JobEvent
from jobcast.settings import DEFAULT_HANDSHAKE_TIMEOUT
from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, open_publisher
from tests.conftest import Valkey
from tests.e2e.asgi_servers import COMMANDS, AsgiServer, invalid_data_client, upgrading_client
from tests.support import SHORT_LIVED, TIMEOUT, Transcript, eventually, following, new_id, running
from tests.support.sse import http_client, read_stream, read_until, streaming

# python-engineio's client does not read the responses to its long-polling requests. If a body
# arrives after its headers, aiohttp reports an open connection at garbage collection.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

Token = Callable[..., str]
Publish = Callable[..., Awaitable[None]]

HISTORY = 40
LIVE = 400
LIMIT = 256 * 1024  # characters queued for a client
AHEAD = 500  # events of about 120 characters, far below LIMIT
LINE = "x" * 8000
LINES = 3000  # for a client that does not read: 24 MB
BATCH = 25  # lines published at a time
CLOSE_TIMEOUT = 25.0  # seconds; the server closes at once or after DEFAULT_HANDSHAKE_TIMEOUT
MAX_GROWTH = 20 * 1024 * 1024  # bytes; without a bound the server grows by all LINES


@pytest.fixture(autouse=True)
def collect_open_connections() -> Iterator[None]:
    """Collect open connections here, so that their warnings do not fail other tests."""
    yield
    gc.collect()


@pytest.fixture(scope="module", params=list(COMMANDS))
def process(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, valkey: Valkey
) -> Iterator[AsgiServer]:
    log_path = tmp_path_factory.mktemp(request.param) / "server.log"
    env = {"JOBCAST_SEND_BUFFER": str(LIMIT)}
    with running(AsgiServer(log_path, valkey.url, request.param, env)) as server:
        server.ready()
        yield server


@pytest.fixture
def asgi(process: AsgiServer) -> Iterator[AsgiServer]:
    """The server. Fail if it logs a traceback during the test."""
    before = len(process.log)
    yield process
    assert "Traceback" not in process.log[before:]


@pytest.fixture
async def publish(valkey: Valkey) -> AsyncIterator[Publish]:
    """Publish events as a worker does."""
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=2 * LINES))

    async def publish(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    yield publish
    publisher.close()


def texts(transcript: Transcript, job_id: str) -> list[str]:
    return [event["message"] for event in transcript.of(job_id, "job_log")]


async def test_websocket_receives_history_then_acknowledgement_then_live_events(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id), *(log(job_id, n) for n in range(HISTORY)))
    async with following(asgi.url, token(jobs=["*"])) as alice:
        paths = await asgi.paths()
        # Otherwise all servers would test the same code.
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))
        answer = await alice.join(job_id)
        assert answer["ok"] is True
        assert (answer["status"], answer["seq"]) == ("started", HISTORY + 1)
        assert alice.transcript.names(job_id) == ["joined", "job_status", *["job_log"] * HISTORY]
        for begin in range(HISTORY, HISTORY + LIVE, 7):
            await publish(*(log(job_id, n) for n in range(begin, min(begin + 7, HISTORY + LIVE))))
        await alice.transcript.wait_logged(job_id, HISTORY + LIVE)
        assert texts(alice.transcript, job_id) == [str(n) for n in range(HISTORY + LIVE)]
        assert alice.transcript.seqs(job_id) == list(range(1, HISTORY + LIVE + 2))
        assert await alice.leave(job_id) == {"ok": True, "job_id": job_id}
    await asgi.wait_until_empty()


@pytest.mark.parametrize("size", [0, 60, 200, 10_000, 70_000])
async def test_events_of_any_length_and_any_characters_arrive(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token, size: int
) -> None:
    text = "€🎉" * (size // 2)
    async with following(asgi.url, token(jobs=["*"])) as alice:
        await alice.join(job_id)
        await publish(log(job_id, text), log(job_id, text[:-1]), log(job_id, "end"))
        await alice.transcript.wait_logged(job_id, 3)
        assert texts(alice.transcript, job_id) == [text, text[:-1], "end"]


async def test_stock_client_that_starts_with_long_polling_loses_nothing(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    async def publish_lines() -> None:
        for n in range(LIVE):
            await publish(log(job_id, n))

    await publish(started(job_id))
    publishing = asyncio.create_task(publish_lines())
    async with following(asgi.url, token(jobs=["*"]), ("polling", "websocket")) as alice:
        assert alice.client.transport() == "websocket"
        await alice.join(job_id)
        await publishing
        await alice.transcript.wait_logged(job_id, LIVE)
        assert texts(alice.transcript, job_id) == [str(n) for n in range(LIVE)]
        assert alice.transcript.seqs(job_id) == list(range(1, LIVE + 2))
    await asgi.wait_until_empty()


async def test_upgrade_loses_repeats_and_reorders_nothing(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    published = 0
    ahead = AHEAD
    stop = asyncio.Event()

    async def publish_lines() -> None:
        nonlocal published
        while not stop.is_set():
            if published >= client.event_count + ahead:
                await asyncio.sleep(0.01)
                continue
            await publish(*(log(job_id, n) for n in range(published, published + 3)))
            published += 3

    await publish(started(job_id))
    async with upgrading_client(asgi.url, token(jobs=["*"])) as client:
        await client.send(f"421{json.dumps(['join_job', {'job_id': job_id}])}")
        await eventually(lambda: any(p.startswith("431") for p in client.packets), "answer")
        publishing = asyncio.create_task(publish_lines())

        async def wait_for_events(more: int) -> None:
            seen = len(client.events("job_log"))
            await eventually(lambda: len(client.events("job_log")) >= seen + more, "events")

        await wait_for_events(50)
        await client.probe()
        # During the upgrade polls return no events, so new events have to wait.
        before = published
        ahead *= 2
        await eventually(lambda: published > before + 50, "events during the upgrade")
        await client.upgrade()
        await wait_for_events(50)
        # Requests use the WebSocket now.
        await client.send(f"422{json.dumps(['leave_job', {'job_id': 'another'}])}")
        await eventually(lambda: any(p.startswith("432") for p in client.packets), "answer")
        stop.set()
        await publishing
        await eventually(lambda: len(client.events("job_log")) >= published, f"{published} events")
        messages = [event["message"] for event in client.events("job_log")]
        assert messages == [str(n) for n in range(published)]
        assert [event["seq"] for event in client.events("job_log")] == list(range(2, published + 2))
        paths = await asgi.paths()
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))
    await asgi.wait_until_empty()


#: Invalid packets of Engine.IO and of Socket.IO.
GARBAGE: tuple[str | bytes, ...] = (
    "", "x", "0{}", "2", "6", "bAAAA", "\x00", "ü", "4", "4x", "42", "42{}", "42[]", "42[1]",
    '42["join_job"', "42[{}]", "49", "45-[", "44{}", "4" + "[" * 5000, "x" * 70_000,
    '42["join_job",' + "1" * 70_000, b"\x00", b"\xff" * 100, b"4", b"x" * 70_000,
)  # fmt: skip


async def assert_all_closed(
    asgi: AsgiServer, token: str, payloads: tuple[str | bytes, ...]
) -> None:
    """Check that the server closes concurrent clients that each send one of the payloads."""

    async def send(garbage: str | bytes) -> None:
        async with invalid_data_client(asgi.url, token) as client:
            await client.join(new_id())
            if isinstance(garbage, str):
                await client.send(garbage)
            else:
                await client.send_binary(garbage)
            await client.wait_until_closed(CLOSE_TIMEOUT)

    ends = await asyncio.gather(*map(send, payloads), return_exceptions=True)
    assert [(g[:20], end) for g, end in zip(payloads, ends, strict=True) if end is not None] == []
    await asgi.wait_until_empty()


async def test_clients_that_send_garbage_are_closed(asgi: AsgiServer, token: Token) -> None:
    await assert_all_closed(asgi, token(jobs=["*"]), GARBAGE)


async def test_client_that_sends_garbage_does_not_affect_others(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    async with following(asgi.url, token(jobs=["*"])) as other:
        await other.join(job_id)
        for n in range(10):
            async with invalid_data_client(asgi.url, token(jobs=["*"])) as client:
                await client.join(job_id)
                await client.send("4x")
                await publish(log(job_id, n))
                await client.wait_until_closed(CLOSE_TIMEOUT)
        await other.transcript.wait_logged(job_id, 10)
        assert texts(other.transcript, job_id) == [str(n) for n in range(10)]
    await asgi.wait_until_empty()


async def test_unknown_packet_types_close_a_connection(asgi: AsgiServer, token: Token) -> None:
    await assert_all_closed(asgi, token(jobs=["*"]), ("7", "8{}", "99"))


async def test_empty_messages_close_a_connection(asgi: AsgiServer, token: Token) -> None:
    await assert_all_closed(asgi, token(jobs=["*"]), (b"", "b", "b!"))


async def test_text_frame_with_invalid_utf8_closes_a_connection(
    process: AsgiServer, token: Token
) -> None:
    # The ASGI server rejects and logs this frame, so the log is not checked.
    async with invalid_data_client(process.url, token()) as client:
        await client.send_text(b"42[\xff\xfe]")
        await client.wait_until_closed(CLOSE_TIMEOUT)
    await process.wait_until_empty()


@pytest.mark.parametrize(
    "garbage", [b"x", b"7", b"4x", b"42[]", b"b", b"4", b"\xff", b"\x1e", b"3" * 40]
)
async def test_garbage_by_long_polling_is_answered_without_a_traceback(
    asgi: AsgiServer, token: Token, garbage: bytes
) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(CLOSE_TIMEOUT):
        query = await open_polling_session(session, asgi.url)
        connect = f"40{json.dumps({'token': token()})}"
        # The client does not poll, which must not delay the responses.
        for data in (connect, garbage, "1"):
            url = f"{asgi.url}/socket.io/"
            async with session.post(url, params=query, data=data) as answer:
                assert answer.status in (200, 400), answer


async def open_polling_session(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    """Open a long-polling session and return the query parameters of its requests."""
    query = {"EIO": "4", "transport": "polling"}
    async with session.get(f"{url}/socket.io/", params=query) as answer:
        return {**query, "sid": json.loads((await answer.text())[1:])["sid"]}


async def test_abandoned_long_poll_does_not_prevent_shutdown(
    valkey: Valkey, tmp_path: Path
) -> None:
    with running(AsgiServer(tmp_path / "log", valkey.url, "uvicorn-sansio")) as server:
        server.ready()
        async with aiohttp.ClientSession() as session:
            await open_polling_session(session, server.url)
        await eventually(lambda: "did not authenticate" in server.log, "end of the session")
        # uvicorn exits by raising the signal again.
        assert await asyncio.to_thread(server.stop, 15) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log


async def test_invalid_frame_closes_a_connection(asgi: AsgiServer, token: Token) -> None:
    # A reserved opcode, an unmasked frame, and a control frame that is too long.
    for garbage in (b"\x83\x80abcd", b"\x81\x01x", b"\x89\xfe\x01\x00abcd" + b"x" * 256):
        async with invalid_data_client(asgi.url, token()) as client:
            await client.write(garbage)
            await client.wait_until_closed(CLOSE_TIMEOUT)
    await asgi.wait_until_empty()


async def test_client_that_vanishes_is_released(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    async with invalid_data_client(asgi.url, token(jobs=["*"])) as client:
        await client.join(job_id)
        assert await asgi.metric("jobcast_connections") == 1
        assert await asgi.metric("jobcast_jobs_followed") == 1
    await asgi.wait_until_empty()


async def test_expired_token_ends_and_releases_its_connection(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    async with following(asgi.url, token(jobs=["*"], ttl=2 * SHORT_LIVED)) as alice:
        await alice.join(job_id)
        assert await asgi.metric("jobcast_connections") == 1
        await eventually(lambda: not alice.client.connected, "end of the connection")
        assert "token_expiring" in [name for name, _ in alice.transcript.events]
        await asgi.wait_until_empty()


async def test_client_that_ignores_the_expiry_of_its_token_is_closed(
    asgi: AsgiServer, token: Token
) -> None:
    # The token expires after the handshake timeout has stopped watching the connection.
    ttl = int(DEFAULT_HANDSHAKE_TIMEOUT) + 2
    async with invalid_data_client(asgi.url, token(ttl=ttl)) as client:
        async with asyncio.timeout(TIMEOUT):
            await client.read_until(lambda packet: packet == "41")
        # The client ignores the disconnect. Its connection may then stay no longer than one that
        # never authenticated.
        await client.wait_until_closed(CLOSE_TIMEOUT)
    await asgi.wait_until_empty()


async def test_unfinished_upgrade_is_closed(
    asgi: AsgiServer,
) -> None:
    async with aiohttp.ClientSession() as session:
        query = await open_polling_session(session, asgi.url)
        url = f"{asgi.url}/socket.io/".replace("http", "ws", 1)
        async with session.ws_connect(url, params={**query, "transport": "websocket"}) as socket:
            # The session never authenticates, and the WebSocket must not outlive it.
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await socket.receive()
            assert socket.closed


async def test_client_that_does_not_read_costs_bounded_memory(
    asgi: AsgiServer, publish: Publish, job_id: str, token: Token
) -> None:
    await publish(started(job_id))
    async with (
        invalid_data_client(asgi.url, token(jobs=["*"])) as slow,
        following(asgi.url, token(jobs=["*"])) as other,
    ):
        await slow.join(job_id)
        await other.join(job_id)
        before, disconnects = asgi.peak_memory, await asgi.metric("jobcast_slow_disconnects_total")
        for begin in range(0, LINES, BATCH):
            await publish(*(log(job_id, f"{LINE}{n}") for n in range(begin, begin + BATCH)))
            # The other client receives each batch before the next is published.
            await other.transcript.wait_logged(job_id, begin + BATCH)
        assert asgi.peak_memory - before < MAX_GROWTH
        assert await asgi.metric("jobcast_slow_disconnects_total") == disconnects + 1
        # The connection ends now, because the client may never read again.
        await asgi.wait_for_metric("jobcast_connections", 1)
        async with asyncio.timeout(TIMEOUT):
            await slow.read_to_the_end()
        seen = [event["message"] for event in slow.events("job_log")]
        assert seen == [f"{LINE}{n}" for n in range(len(seen))]
        assert len(seen) < LINES
        assert other.client.connected
    await asgi.wait_until_empty()


async def test_event_stream_delivers_resumes_and_is_forgotten(
    asgi: AsgiServer, publish: Publish, token: Token, job_id: str
) -> None:
    path = f"/jobs/{job_id}/events"
    await publish(started(job_id), log(job_id, "past"))
    async with http_client(asgi.url, token(jobs=["*"])) as client:
        async with streaming(client, path) as (reader, chunks):
            await read_until(reader, chunks, "job_log")
            await publish(log(job_id, "live"))
            await read_until(reader, chunks, "job_log", 2)
        await publish(log(job_id, "missed"), JobComplete(job_id=job_id, result=None))
        rest = await read_stream(client, path, **{"Last-Event-ID": reader.last_id})
        assert rest.names == ["joined", "job_log", "job_complete"]
        known = {"Last-Event-ID": rest.last_id}
        assert (await client.get(path, headers=known)).status_code == 204
    await asgi.wait_until_empty()


async def test_unread_event_stream_costs_a_bounded_amount(
    asgi: AsgiServer, publish: Publish, token: Token, job_id: str
) -> None:
    await publish(started(job_id))
    before, cut = asgi.peak_memory, await asgi.metric("jobcast_slow_disconnects_total")
    reader, writer = await asyncio.open_connection("127.0.0.1", asgi.port, limit=1024)
    head = [
        f"GET /jobs/{job_id}/events HTTP/1.1", "Host: test",
        f"Authorization: Bearer {token(jobs=['*'])}",
    ]  # fmt: skip
    with closing(writer):
        writer.write("\r\n".join([*head, "", ""]).encode())
        await reader.readuntil(b"job_status")
        for _ in range(0, LINES, BATCH):
            await publish(*(log(job_id, LINE) for _ in range(BATCH)))
        await asgi.wait_for_metric("jobcast_slow_disconnects_total", cut + 1)
        assert asgi.peak_memory - before < MAX_GROWTH
        # The client may never read again.
        await asgi.wait_until_empty()
