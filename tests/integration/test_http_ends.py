"""How responses of the HTTP interface end, and what the server keeps of them: nothing."""

from __future__ import annotations

import asyncio
import gc
import signal
from pathlib import Path

import httpx

from jobcast.realtime import create_app
from jobcast.realtime.http.event_stream import EventStream
from jobcast.settings import Settings
from tests.conftest import Valkey
from tests.http_application import UNDECIDED
from tests.support import Server, eventually, new_id
from tests.support.http_server import Publish, Token, code_of, complete, line, serving, started
from tests.support.sse import http_client, read_stream, read_until, streaming


async def test_stream_that_never_began_leaves_nothing_in_memory(
    valkey: Valkey, publish: Publish, secret: str, token: Token, job_id: str
) -> None:
    publish(started(job_id), complete(job_id))
    app = create_app(Settings(url=valkey.url, jwt_secret=secret))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://test",
            headers={"Authorization": f"Bearer {token()}"},
        ) as client,
    ):
        path = f"/jobs/{job_id}/events"
        ended = await read_stream(client, path)
        for _ in range(3):
            again = await client.get(path, headers={"Last-Event-ID": ended.last_id})
            assert again.status_code == 204
        gc.collect()
        assert not [found for found in gc.get_objects() if isinstance(found, EventStream)]


async def test_stream_ends_with_its_connection_although_another_request_has_followed(
    server: Server, publish: Publish, token: Token, job_id: str
) -> None:
    publish(started(job_id))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"Host: test\r\nAuthorization: Bearer {token()}\r\n\r\n"
    writer.write(f"GET /jobs/{job_id}/events HTTP/1.1\r\n{head}".encode())
    await reader.readuntil(b"job_status")
    writer.write(f"GET /jobs/{job_id} HTTP/1.1\r\n{head}".encode())
    await writer.drain()
    writer.transport.abort()

    def is_closed() -> bool:
        publish(line(job_id, "news"))  # uvicorn notices the end by a failed write
        return "the response ended" in server.log.partition(f"joined {job_id}")[2]

    await eventually(is_closed, "end of the connection")


async def test_interrupt_from_the_keyboard_closes_streams_at_once(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path, JOBCAST_DRAIN_SECONDS="600") as server:
        async with (
            http_client(server.url, token()) as client,
            streaming(client, f"/jobs/{job_id}/events") as (reader, chunks),
        ):
            await read_until(reader, chunks, "job_status")
            server.popen.send_signal(signal.SIGINT)
            async for _ in chunks:
                pass
        assert reader.names[-1] == "draining"
        await server.wait_exit()
        assert "Cancel" not in server.log
        assert "Traceback" not in server.log


async def test_client_is_asked_to_come_back_for_a_job_that_was_refused_for_now(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path
) -> None:
    ended, undecided = new_id(), new_id()
    for job_id in (ended, undecided):
        publish(started(job_id), complete(job_id))
    env = {
        "JOBCAST_AUTHORIZE": "tests.http_application:may_follow_in_time",
        "JOBCAST_AUTHORIZE_TIMEOUT": "1",
        UNDECIDED: undecided,
    }
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url, token()) as client:
            reader = await read_stream(client, f"/jobs/{ended}/events")
            path = f"/events?job={ended}&job={undecided}"
            response = await client.get(path, headers={"Last-Event-ID": f"{reader.last_id},a:1"})
            assert code_of(response, 503) == "unavailable"
