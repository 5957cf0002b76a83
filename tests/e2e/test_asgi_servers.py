"""The same stories under every ASGI server, whether or not frames go past it."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from jobcast.events import JobComplete, JobEvent
from jobcast.settings import DEFAULT_HANDSHAKE_TIMEOUT
from jobcast.testing import log, started
from jobcast.transports import Outgoing, Retention, open_publisher
from tests.conftest import Valkey
from tests.e2e.asgi_servers import COMMANDS, AsgiServer, climbing, rude_client
from tests.support import TIMEOUT, Transcript, eventually, following, new_id, running
from tests.support.sse import http_client, read_stream, read_until, streaming

# python-engineio's client does not read the answers to its requests in long-polling: where their
# bodies come after their heads, aiohttp finds their connections open when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed connection:ResourceWarning")

Token = Callable[..., str]
Say = Callable[..., Awaitable[None]]

HISTORY = 40
LIVE = 400
LIMIT = 256 * 1024  # characters that may wait for a client
AHEAD = 500  # events of some 120 characters, far from that limit
LINE = "x" * 8000
LINES = 3000  # for a client that does not read: 24 MB
PIECE = 25  # lines that are said at a time
PATIENCE = 25.0  # seconds for what should be over after DEFAULT_HANDSHAKE_TIMEOUT, or at once
ROOM = 20 * 1024 * 1024  # bytes that the server may grow by; without a bound it would be LINES


@pytest.fixture(autouse=True)
def collect_what_clients_left() -> Iterator[None]:
    """While it may be left; other tests would be blamed for it."""
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
    """The server, which has nothing to complain of while the test has it."""
    before = len(process.log)
    yield process
    assert "Traceback" not in process.log[before:]


@pytest.fixture
async def say(valkey: Valkey) -> AsyncIterator[Say]:
    """Publishes events, as a worker does."""
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=2 * LINES))

    async def say(*events: JobEvent) -> None:
        await asyncio.to_thread(publisher.publish, [Outgoing.of(event) for event in events])

    yield say
    publisher.close()


def texts(transcript: Transcript, job_id: str) -> list[str]:
    return [event["message"] for event in transcript.of(job_id, "job_log")]


async def test_a_websocket_has_the_history_then_its_answer_then_what_comes(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id), *(log(job_id, n) for n in range(HISTORY)))
    async with following(asgi.url, token(jobs=["*"])) as alice:
        paths = await asgi.paths()
        # Otherwise this would be the same test four times.
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))
        answer = await alice.join(job_id)
        assert answer["ok"] is True
        assert (answer["status"], answer["seq"]) == ("started", HISTORY + 1)
        assert alice.transcript.names(job_id) == ["joined", "job_status", *["job_log"] * HISTORY]
        for begin in range(HISTORY, HISTORY + LIVE, 7):
            await say(*(log(job_id, n) for n in range(begin, min(begin + 7, HISTORY + LIVE))))
        await alice.transcript.logged(job_id, HISTORY + LIVE)
        assert texts(alice.transcript, job_id) == [str(n) for n in range(HISTORY + LIVE)]
        assert alice.transcript.seqs(job_id) == list(range(1, HISTORY + LIVE + 2))
        assert await alice.leave(job_id) == {"ok": True, "job_id": job_id}
    await asgi.becomes_empty()


@pytest.mark.parametrize("size", [0, 60, 200, 10_000, 70_000])
async def test_events_of_any_length_and_of_any_letters_arrive(
    asgi: AsgiServer, say: Say, job_id: str, token: Token, size: int
) -> None:
    text = "€🎉" * (size // 2)
    async with following(asgi.url, token(jobs=["*"])) as alice:
        await alice.join(job_id)
        await say(log(job_id, text), log(job_id, text[:-1]), log(job_id, "end"))
        await alice.transcript.logged(job_id, 3)
        assert texts(alice.transcript, job_id) == [text, text[:-1], "end"]


async def test_a_stock_client_that_begins_with_long_polling_loses_nothing(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    async def talk() -> None:
        for n in range(LIVE):
            await say(log(job_id, n))

    await say(started(job_id))
    talking = asyncio.create_task(talk())
    async with following(asgi.url, token(jobs=["*"]), ("polling", "websocket")) as alice:
        assert alice.client.transport() == "websocket"
        await alice.join(job_id)
        await talking
        await alice.transcript.logged(job_id, LIVE)
        assert texts(alice.transcript, job_id) == [str(n) for n in range(LIVE)]
        assert alice.transcript.seqs(job_id) == list(range(1, LIVE + 2))
    await asgi.becomes_empty()


async def test_nothing_is_lost_or_doubled_or_overtaken_during_an_upgrade(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    said = 0
    ahead = AHEAD
    enough = asyncio.Event()

    async def talk() -> None:
        nonlocal said
        while not enough.is_set():
            if said >= climber.heard + ahead:
                await asyncio.sleep(0.01)
                continue
            await say(*(log(job_id, n) for n in range(said, said + 3)))
            said += 3

    await say(started(job_id))
    async with climbing(asgi.url, token(jobs=["*"])) as climber:
        await climber.send(f"421{json.dumps(['join_job', {'job_id': job_id}])}")
        await eventually(lambda: any(p.startswith("431") for p in climber.packets), "answer")
        talking = asyncio.create_task(talk())

        async def hears(more: int) -> None:
            seen = len(climber.events("job_log"))
            await eventually(lambda: len(climber.events("job_log")) >= seen + more, "events")

        await hears(50)
        await climber.probe()
        # While the upgrade is on its way polls are answered with nothing; what comes has to wait.
        before = said
        ahead *= 2
        await eventually(lambda: said > before + 50, "events during the upgrade")
        await climber.upgrade()
        await hears(50)
        # Requests come by the WebSocket now.
        await climber.send(f"422{json.dumps(['leave_job', {'job_id': 'another'}])}")
        await eventually(lambda: any(p.startswith("432") for p in climber.packets), "answer")
        enough.set()
        await talking
        await eventually(lambda: len(climber.events("job_log")) >= said, f"{said} events")
        messages = [event["message"] for event in climber.events("job_log")]
        assert messages == [str(n) for n in range(said)]
        assert [event["seq"] for event in climber.events("job_log")] == list(range(2, said + 2))
        paths = await asgi.paths()
        assert (paths["direct"], paths["ordinary"]) == ((1, 0) if asgi.direct else (0, 1))
    await asgi.becomes_empty()


#: What is no packet of Engine.IO, and what is none of Socket.IO.
GARBAGE: tuple[str | bytes, ...] = (
    "", "x", "0{}", "2", "6", "bAAAA", "\x00", "ü", "4", "4x", "42", "42{}", "42[]", "42[1]",
    '42["join_job"', "42[{}]", "49", "45-[", "44{}", "4" + "[" * 5000, "x" * 70_000,
    '42["join_job",' + "1" * 70_000, b"\x00", b"\xff" * 100, b"4", b"x" * 70_000,
)  # fmt: skip


async def close_all(asgi: AsgiServer, token: str, said: tuple[str | bytes, ...]) -> None:
    """Whoever says one of these is closed, all at the same time."""

    async def say(garbage: str | bytes) -> None:
        async with rude_client(asgi.url, token) as client:
            await client.join(new_id())
            if isinstance(garbage, str):
                await client.send(garbage)
            else:
                await client.send_binary(garbage)
            await client.is_closed(PATIENCE)

    ends = await asyncio.gather(*map(say, said), return_exceptions=True)
    assert [(g[:20], end) for g, end in zip(said, ends, strict=True) if end is not None] == []
    await asgi.becomes_empty()


async def test_clients_that_speak_garbage_are_closed(asgi: AsgiServer, token: Token) -> None:
    await close_all(asgi, token(jobs=["*"]), GARBAGE)


async def test_a_client_that_speaks_garbage_is_nothing_to_the_others(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with following(asgi.url, token(jobs=["*"])) as other:
        await other.join(job_id)
        for n in range(10):
            async with rude_client(asgi.url, token(jobs=["*"])) as client:
                await client.join(job_id)
                await client.send("4x")
                await say(log(job_id, n))
                await client.is_closed(PATIENCE)
        await other.transcript.logged(job_id, 10)
        assert texts(other.transcript, job_id) == [str(n) for n in range(10)]
    await asgi.becomes_empty()


async def test_types_of_packets_that_there_are_not_close_a_connection(
    asgi: AsgiServer, token: Token
) -> None:
    await close_all(asgi, token(jobs=["*"]), ("7", "8{}", "99"))


async def test_messages_with_nothing_in_them_close_a_connection(
    asgi: AsgiServer, token: Token
) -> None:
    await close_all(asgi, token(jobs=["*"]), (b"", "b", "b!"))


async def test_a_text_that_is_none_closes_a_connection(process: AsgiServer, token: Token) -> None:
    # What is logged of it is the server's affair: jobcast is not asked.
    async with rude_client(process.url, token()) as client:
        await client.send_text(b"42[\xff\xfe]")
        await client.is_closed(PATIENCE)
    await process.becomes_empty()


@pytest.mark.parametrize(
    "garbage", [b"x", b"7", b"4x", b"42[]", b"b", b"4", b"\xff", b"\x1e", b"3" * 40]
)
async def test_garbage_by_long_polling_is_answered_and_not_told_of(
    asgi: AsgiServer, token: Token, garbage: bytes
) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE):
        own = await poll(session, asgi.url)
        connect = f"40{json.dumps({'token': token()})}"
        # It does not poll: whether it is answered is not for it to delay.
        for data in (connect, garbage, "1"):
            url = f"{asgi.url}/socket.io/"
            async with session.post(url, params=own, data=data) as answer:
                assert answer.status in (200, 400), answer


async def poll(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    """Open a connection by long-polling. Returns what its requests have to say."""
    query = {"EIO": "4", "transport": "polling"}
    async with session.get(f"{url}/socket.io/", params=query) as answer:
        return {**query, "sid": json.loads((await answer.text())[1:])["sid"]}


async def test_a_long_poll_that_was_left_does_not_keep_the_process_from_ending(
    valkey: Valkey, tmp_path: Path
) -> None:
    with running(AsgiServer(tmp_path / "log", valkey.url, "uvicorn-sansio")) as server:
        server.ready()
        async with aiohttp.ClientSession() as session:
            await poll(session, server.url)
        await eventually(lambda: "did not authenticate" in server.log, "end of it")
        # uvicorn ends by raising the signal once more.
        assert await asyncio.to_thread(server.stop, 15) in (0, -signal.SIGTERM)
        assert "Traceback" not in server.log


async def test_what_is_no_frame_closes_a_connection(asgi: AsgiServer, token: Token) -> None:
    # An opcode that there is not, a frame that is not masked, a control frame that is too long.
    for garbage in (b"\x83\x80abcd", b"\x81\x01x", b"\x89\xfe\x01\x00abcd" + b"x" * 256):
        async with rude_client(asgi.url, token()) as client:
            await client.write(garbage)
            await client.is_closed(PATIENCE)
    await asgi.becomes_empty()


async def test_a_client_that_goes_without_a_word_is_forgotten(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with rude_client(asgi.url, token(jobs=["*"])) as client:
        await client.join(job_id)
        assert await asgi.metric("jobcast_connections") == 1
        assert await asgi.metric("jobcast_jobs_followed") == 1
    await asgi.becomes_empty()


async def test_an_expired_token_ends_its_connection_and_nothing_of_it_is_left(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with following(asgi.url, token(jobs=["*"], ttl=3)) as alice:
        await alice.join(job_id)
        assert await asgi.metric("jobcast_connections") == 1
        await eventually(lambda: not alice.client.connected, "end of the connection")
        assert "token_expiring" in [name for name, _ in alice.transcript.events]
        await asgi.becomes_empty()


async def test_a_client_that_does_not_go_when_its_token_expired_is_made_to(
    asgi: AsgiServer, token: Token
) -> None:
    # It expires when nobody looks any more whether the connection has authenticated.
    ttl = int(DEFAULT_HANDSHAKE_TIMEOUT) + 2
    async with rude_client(asgi.url, token(ttl=ttl)) as client:
        async with asyncio.timeout(TIMEOUT):
            await client.read_until(lambda packet: packet == "41")
        # It was told, and stays. A connection that is nobody's is not to be had for longer than
        # one that never authenticated.
        await client.is_closed(PATIENCE)
    await asgi.becomes_empty()


async def test_an_upgrade_that_is_begun_and_not_ended_is_not_kept_for_ever(
    asgi: AsgiServer,
) -> None:
    async with aiohttp.ClientSession() as session:
        own = await poll(session, asgi.url)
        url = f"{asgi.url}/socket.io/".replace("http", "ws", 1)
        async with session.ws_connect(url, params={**own, "transport": "websocket"}) as socket:
            # It never authenticates; the WebSocket must not outlive what it was opened for.
            async with asyncio.timeout(PATIENCE):
                await socket.receive()
            assert socket.closed


async def test_a_client_that_does_not_read_costs_a_bounded_amount(
    asgi: AsgiServer, say: Say, job_id: str, token: Token
) -> None:
    await say(started(job_id))
    async with (
        rude_client(asgi.url, token(jobs=["*"])) as slow,
        following(asgi.url, token(jobs=["*"])) as other,
    ):
        await slow.join(job_id)
        await other.join(job_id)
        before, cut = asgi.peak_memory, await asgi.metric("jobcast_slow_disconnects_total")
        for begin in range(0, LINES, PIECE):
            await say(*(log(job_id, f"{LINE}{n}") for n in range(begin, begin + PIECE)))
            # The other one has each piece before the next is said.
            await other.transcript.logged(job_id, begin + PIECE)
        assert asgi.peak_memory - before < ROOM
        assert await asgi.metric("jobcast_slow_disconnects_total") == cut + 1
        # Not when it reads again: that may be never.
        await asgi.becomes("jobcast_connections", 1)
        async with asyncio.timeout(TIMEOUT):
            await slow.read_to_the_end()
        seen = [event["message"] for event in slow.events("job_log")]
        assert seen == [f"{LINE}{n}" for n in range(len(seen))]
        assert len(seen) < LINES
        assert other.client.connected
    await asgi.becomes_empty()


async def test_event_stream_delivers_resumes_and_is_forgotten(
    asgi: AsgiServer, say: Say, token: Token, job_id: str
) -> None:
    path = f"/jobs/{job_id}/events"
    await say(started(job_id), log(job_id, "past"))
    async with http_client(asgi.url, token(jobs=["*"])) as client:
        async with streaming(client, path) as (reader, chunks):
            await read_until(reader, chunks, "job_log")
            await say(log(job_id, "live"))
            await read_until(reader, chunks, "job_log", 2)
        await say(log(job_id, "missed"), JobComplete(job_id=job_id, result=None))
        rest = await read_stream(client, path, **{"Last-Event-ID": reader.last_id})
        assert rest.names == ["joined", "job_log", "job_complete"]
        known = {"Last-Event-ID": rest.last_id}
        assert (await client.get(path, headers=known)).status_code == 204
    await asgi.becomes_empty()


async def test_unread_event_stream_costs_a_bounded_amount(
    asgi: AsgiServer, say: Say, token: Token, job_id: str
) -> None:
    await say(started(job_id))
    before, cut = asgi.peak_memory, await asgi.metric("jobcast_slow_disconnects_total")
    reader, writer = await asyncio.open_connection("127.0.0.1", asgi.port, limit=1024)
    head = [
        f"GET /jobs/{job_id}/events HTTP/1.1", "Host: test",
        f"Authorization: Bearer {token(jobs=['*'])}",
    ]  # fmt: skip
    writer.write("\r\n".join([*head, "", ""]).encode())
    await reader.readuntil(b"job_status")
    for _ in range(0, LINES, PIECE):
        await say(*(log(job_id, LINE) for _ in range(PIECE)))
    assert asgi.peak_memory - before < ROOM
    assert await asgi.metric("jobcast_slow_disconnects_total") == cut + 1
    # The client has not read again: that may be never.
    await asgi.becomes_empty()
    writer.close()
