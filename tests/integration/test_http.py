"""The HTTP interface of a server process: the state of a job, and its events as a stream."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate

from jobcast.events import JobProgress
from jobcast.revocation import revoke
from jobcast.settings import Settings
from tests.conftest import Valkey
from tests.http_application import FORBIDDEN
from tests.support import SHORT_LIVED, TIMEOUT, Server, eventually, following, new_id, running
from tests.support.http_server import (
    LINE,
    Publish,
    Token,
    code_of,
    complete,
    line,
    serving,
    started,
)
from tests.support.sse import EventReader, http_client, read_stream, read_until, streaming

# --- the state of a job ---------------------------------------------------------------------------


async def test_state_has_what_the_events_of_a_job_say(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id), *(line(job_id, number) for number in range(3)))
    publish(JobProgress(job_id=job_id, percentage=40, message="busy", current=2, total=5))
    response = await client.get(f"/jobs/{job_id}", params={"logs": 2})
    state = response.json()
    assert state["status"] == "started"
    assert state["task"] == "shop.export"
    assert (state["attempt"], state["run"]) == (1, 1)
    assert state["progress"] == {"percentage": 40, "message": "busy", "current": 2, "total": 5}
    assert state["log_lines"] == 3
    assert [entry["message"] for entry in state["logs"]] == ["1", "2"]
    assert state["cursor"].endswith(":5")
    assert state["started_at"] <= state["updated_at"]
    assert "ended_at" not in state
    publish(complete(job_id, {"rows": 7}))
    state = (await client.get(f"/jobs/{job_id}")).json()
    assert (state["status"], state["result"]) == ("complete", {"rows": 7})
    assert state["ended_at"] == state["updated_at"]
    assert "logs" not in state


async def test_unchanged_state_is_not_sent_again(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    first = await client.get(f"/jobs/{job_id}")
    known = {"If-None-Match": first.headers["etag"]}
    again = await client.get(f"/jobs/{job_id}", headers=known)
    assert (again.status_code, again.content) == (304, b"")
    publish(line(job_id, "news"))
    assert (await client.get(f"/jobs/{job_id}", headers=known)).status_code == 200


@pytest.mark.parametrize("known", ["W/{}", "*", '"other", W/{}'])
async def test_entity_tags_are_compared_weakly(
    client: httpx.AsyncClient, publish: Publish, job_id: str, known: str
) -> None:
    publish(started(job_id))
    etag = (await client.get(f"/jobs/{job_id}")).headers["etag"]
    headers = {"If-None-Match": known.format(etag)}
    assert (await client.get(f"/jobs/{job_id}", headers=headers)).status_code == 304


async def test_head_returns_the_headers_of_a_state_and_no_stream(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    full = await client.get(f"/jobs/{job_id}")
    head = await client.head(f"/jobs/{job_id}")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("etag", "content-length", "content-type"):
        assert head.headers[name] == full.headers[name]
    for path in (f"/jobs/{job_id}/events", f"/events?job={job_id}"):
        stream = await client.head(path)
        assert (stream.status_code, stream.headers["allow"]) == (405, "GET, OPTIONS")


async def test_wait_returns_when_the_job_ends(
    client: httpx.AsyncClient, publish: Publish, job_id: str, server: Server
) -> None:
    publish(started(job_id))
    waiting = asyncio.create_task(client.get(f"/jobs/{job_id}", params={"wait": 60}))
    await eventually(lambda: f"joined {job_id}" in server.log, "waiting request")
    await asyncio.to_thread(publish, complete(job_id, 1))
    state = (await waiting).json()
    assert (state["status"], state["result"]) == ("complete", 1)


async def test_wait_returns_the_state_when_the_time_is_over(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    state = (await client.get(f"/jobs/{job_id}", params={"wait": 0.2})).json()
    assert state["status"] == "started"


async def connection_of(server: Server, job_id: str) -> str:
    """Return the id of the only connection that has followed a job.

    The line of its join follows that of its connection. Other connections may end meanwhile.
    """
    await eventually(lambda: f"joined {job_id}" in server.log, "join in the log")
    before, _, _ = server.log.partition(f"joined {job_id}")
    sids: list[str] = re.findall(r"\bconnected (\S+)", before)
    return sids[-1]


async def test_a_waiting_client_that_goes_away_leaves_no_connection(
    client: httpx.AsyncClient, publish: Publish, job_id: str, server: Server
) -> None:
    publish(started(job_id))
    waiting = httpx.Timeout(TIMEOUT, read=0.5)
    with pytest.raises(httpx.ReadTimeout):
        await client.get(f"/jobs/{job_id}", params={"wait": 60}, timeout=waiting)
    sid = await connection_of(server, job_id)
    await eventually(lambda: f"disconnected {sid}" in server.log, "end of the connection")


# --- problems -------------------------------------------------------------------------------------


async def test_problems_have_the_codes_of_the_protocol(
    server: Server, token: Token, publish: Publish, job_id: str
) -> None:
    publish(started(job_id), owner="bob")
    async with http_client(server.url) as client:
        for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events", f"/events?job={job_id}"):
            missing = await client.get(path)
            assert code_of(missing, 401) == "token_missing"
            assert missing.headers["www-authenticate"] == 'Bearer realm="jobcast"'
            client.headers["Authorization"] = "Bearer garbage"
            invalid = await client.get(path)
            assert code_of(invalid, 401) == "token_invalid"
            assert 'error="invalid_token"' in invalid.headers["www-authenticate"]
            client.headers["Authorization"] = f"Bearer {token()}"
            assert code_of(await client.get(path), 404) == "job_not_found"
            del client.headers["Authorization"]
        client.headers["Authorization"] = f"Bearer {token(jobs=['*'])}"
        for path in (
            "/jobs/a%20b", "/jobs/", f"/jobs/{job_id}?wait=soon", f"/jobs/{job_id}?logs=-1",
            "/events", f"/jobs/{job_id}/events?after=7", f"/jobs/{job_id}/events?after=a:1,b:2",
        ):  # fmt: skip
            assert code_of(await client.get(path), 400) == "invalid_request", path
        many = "&".join(f"job={number}" for number in range(51))
        assert code_of(await client.get(f"/events?{many}"), 400) == "too_many_jobs"
        post = await client.post(f"/jobs/{job_id}")
        assert code_of(post, 405) == "method_not_allowed"
        assert post.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_an_encoded_slash_belongs_to_the_job_id(
    server: Server, token: Token, publish: Publish
) -> None:
    job_id = new_id("exports/2026") + "/events"
    publish(started(job_id), complete(job_id))
    async with http_client(server.url, token()) as client:
        path = f"/jobs/{job_id.replace('/', '%2F')}"
        assert (await client.get(path)).json()["status"] == "complete"
        assert (await read_stream(client, f"{path}/events")).names[-1] == "job_complete"
        encoded = path.replace("/jobs/", "/%6Aobs/", 1).replace("%2Fevents", "%2Fother")
        assert code_of(await client.get(encoded), 404) == "job_not_found"


async def test_a_client_above_its_message_rate_is_asked_to_wait(
    valkey: Valkey, token: Token, tmp_path: Path, job_id: str
) -> None:
    with serving(valkey, tmp_path, JOBCAST_MESSAGE_RATE="1", JOBCAST_MAX_JOBS="1") as server:
        async with http_client(server.url, token(jobs=["*"])) as client:
            response = await client.get(f"/jobs/{job_id}")
            while response.status_code == 200:
                response = await client.get(f"/jobs/{job_id}")
            assert code_of(response, 429) == "rate_limited"
            assert int(response.headers["retry-after"]) >= 1


async def test_transport_outage_is_a_problem_that_passes(
    own_valkey: Valkey, token: Token, tmp_path: Path, job_id: str
) -> None:
    with serving(own_valkey, tmp_path) as server:
        own_valkey.kill()
        async with http_client(server.url, token()) as client:
            response = await client.get(f"/jobs/{job_id}")
    assert code_of(response, 503) == "unavailable"
    assert response.headers["retry-after"]


# --- streams --------------------------------------------------------------------------------------


async def test_stream_has_history_then_live_events_and_ends_with_the_job(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id), line(job_id, "past"))
    async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
        await read_until(reader, chunks, "job_log")
        await asyncio.to_thread(publish, line(job_id, "live"), complete(job_id, 42))
        async for _ in chunks:
            pass
    assert reader.names == ["joined", "job_status", "job_log", "job_log", "job_complete"]
    assert reader.seqs == [1, 2, 3, 4]
    assert [event.id.partition(":")[2] for event in reader.events] == ["", "1", "2", "3", "4"]
    assert reader.of("job_complete")[0]["result"] == 42


@pytest.mark.parametrize("by_header", [True, False], ids=["Last-Event-ID", "?after="])
async def test_resumed_stream_has_the_missed_events_only(
    client: httpx.AsyncClient, publish: Publish, job_id: str, by_header: bool
) -> None:
    publish(started(job_id), line(job_id, "seen"))
    path = f"/jobs/{job_id}/events"
    async with streaming(client, path) as (reader, chunks):
        await read_until(reader, chunks, "job_log")
    publish(line(job_id, "missed"), complete(job_id))
    if by_header:
        # A browser sends the header together with the first request's URL.
        again = await read_stream(
            client, f"{path}?after=gone:1", **{"Last-Event-ID": reader.last_id}
        )
    else:
        again = await read_stream(client, f"{path}?after={reader.last_id}")
    assert again.names == ["joined", "job_log", "job_complete"]
    assert again.seqs == [3, 4]


async def test_client_that_comes_back_after_the_end_gets_204(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id), complete(job_id))
    path = f"/jobs/{job_id}/events"
    ended = await read_stream(client, path)
    again = await client.get(path, headers={"Last-Event-ID": ended.last_id})
    assert (again.status_code, again.content) == (204, b"")
    # A late line is news, and a stream has it.
    publish(line(job_id, "late"))
    late = await read_stream(client, path, **{"Last-Event-ID": ended.last_id})
    assert late.names == ["joined", "job_log"]
    again = await client.get(path, headers={"Last-Event-ID": late.last_id})
    assert again.status_code == 204


async def test_client_that_is_cut_off_after_the_start_of_another_record_gets_all_of_it(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    """The client has discarded its data, and its former server would answer that it has it all."""
    other, replaced = new_id(), new_id()
    for job_id in (other, replaced):
        publish(started(job_id), complete(job_id))
    path = f"/events?job={other}&job={replaced}"
    known, _ = (await read_stream(client, path)).last_id.split(",")
    resumed = await read_stream(client, path, **{"Last-Event-ID": f"{known},gone:7"})
    [joined] = [
        event for event in resumed.events
        if (event.name, event.data["job_id"]) == ("joined", replaced)
    ]  # fmt: skip
    assert joined.id == f"{known},{joined.data['epoch']}:0"
    again = await read_stream(client, path, **{"Last-Event-ID": joined.id})
    assert [event.name for event in again.events if event.data["job_id"] == replaced] == [
        "joined", "job_status", "job_complete",
    ]  # fmt: skip


async def test_one_stream_follows_several_jobs_and_resumes_all_of_them(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    jobs = [new_id() for _ in range(3)]
    path = "/events?" + "&".join(f"job={job}" for job in [*jobs, jobs[0]])
    for job in jobs:
        publish(started(job))
    async with streaming(client, path) as (reader, chunks):
        await read_until(reader, chunks, "job_status", 3)
        await asyncio.to_thread(publish, line(jobs[1], "first"))
        await read_until(reader, chunks, "job_log")
    for job in jobs:
        publish(line(job, "missed"), complete(job))
    again = await read_stream(client, path, **{"Last-Event-ID": reader.last_id})
    for job in jobs:
        events = [event for event in again.events if event.data["job_id"] == job]
        assert [event.name for event in events] == ["joined", "job_log", "job_complete"]
        assert events[1].data["message"] == "missed"
    known = {"Last-Event-ID": again.last_id}
    assert (await client.get(path, headers=known)).status_code == 204


async def test_a_forbidden_job_leaves_a_stream_that_goes_on(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    mine, other = new_id(), new_id()
    publish(started(mine), complete(mine))
    publish(started(other), owner="bob")
    reader = await read_stream(client, f"/events?job={other}&job={mine}")
    assert sorted(reader.names) == ["job_complete", "job_status", "joined", "left"]
    [left] = reader.of("left")
    assert (left["job_id"], left["code"]) == (other, "job_not_found")


async def test_client_that_comes_back_for_an_unknown_job_too_is_not_stopped(
    client: httpx.AsyncClient, publish: Publish
) -> None:
    ended, late = new_id(), new_id()
    publish(started(ended), complete(ended))
    path = f"/events?job={late}&job={ended}"
    known = {"Last-Event-ID": (await read_stream(client, path)).last_id}
    refused = await client.get(path, headers=known)
    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")
    publish(started(late), complete(late))
    reader = await read_stream(client, path, **known)
    assert [event["job_id"] for event in reader.of("job_complete")] == [late]


async def test_silent_stream_has_a_heartbeat(
    client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
        while not reader.comments:
            await anext(chunks)


async def test_stream_is_closed_when_its_client_goes_away(
    server: Server, client: httpx.AsyncClient, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
        await read_until(reader, chunks, "job_status")
        sid = await connection_of(server, job_id)
    await eventually(lambda: f"disconnected {sid}" in server.log, "end of the connection")


# --- slow readers ---------------------------------------------------------------------------------


async def unread_stream(
    server: Server, path: str, token: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream through a small receive buffer, and read its head only."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(
        f"GET {path} HTTP/1.0\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def read_slowly(reader: asyncio.StreamReader) -> EventReader:
    """Read a stream, at a limited rate, until the server closes it."""
    events = EventReader()
    with suppress(ConnectionError):
        while data := await reader.read(2048):
            events.feed(data.decode())
            await asyncio.sleep(0.005)
    return events


async def test_burst_that_exceeds_the_buffer_does_not_cut_a_fast_reader(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path, JOBCAST_SEND_BUFFER="65536") as server:
        async with http_client(server.url, token()) as client:
            async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
                await read_until(reader, chunks, "job_status")
                burst = [line(job_id, f"{number} {LINE}") for number in range(12)]
                await asyncio.to_thread(publish, *burst, complete(job_id))
                async for _ in chunks:
                    pass
        assert "reads too slowly" not in server.log
    assert reader.seqs == list(range(1, 15))


async def test_slow_reader_is_cut_and_resumes_without_loss_or_repetition(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    path = f"/jobs/{job_id}/events"
    with serving(valkey, tmp_path, JOBCAST_SEND_BUFFER="65536") as server:
        reader, writer = await unread_stream(server, path, token())
        reading = asyncio.create_task(read_slowly(reader))
        sent = 0
        while "reads too slowly" not in server.log:
            lines = [line(job_id, f"{sent + more} {LINE}") for more in range(10)]
            await asyncio.to_thread(publish, *lines)
            sent += 10
        await asyncio.to_thread(publish, complete(job_id))
        seen = await reading
        writer.close()
        async with http_client(server.url, token()) as client:
            rest = await read_stream(client, path, **{"Last-Event-ID": seen.last_id})
    assert len(seen.seqs) > 1
    assert seen.seqs + rest.seqs == list(range(1, sent + 3))
    assert rest.names[-1] == "job_complete"


async def read_all(reader: asyncio.StreamReader) -> EventReader:
    """Read a stream to its end."""
    events = EventReader()
    events.feed((await reader.read()).decode())
    return events


async def test_progress_that_a_slow_reader_missed_is_conflated(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path, JOBCAST_METRICS="1") as server:
        reader, writer = await unread_stream(server, f"/jobs/{job_id}/events", token())
        async with http_client(server.url) as client:
            total = 0
            while "jobcast_conflated_total 0.0" in (await client.get("/metrics")).text:
                events = [
                    JobProgress(job_id=job_id, percentage=(total + more) % 100, message=LINE)
                    for more in range(50)
                ]
                await asyncio.to_thread(publish, *events)
                total += 50
        await asyncio.to_thread(publish, line(job_id, "after"), complete(job_id))
        seen = await read_all(reader)
        writer.close()
    assert seen.seqs == sorted(set(seen.seqs))
    assert len(seen.of("job_progress")) < total
    assert seen.of("job_progress")[-1]["percentage"] == (total - 1) % 100
    assert seen.names[-2:] == ["job_log", "job_complete"]
    for event in seen.events:
        if "timestamp" in event.data:
            assert event.id.endswith(f":{event.data['seq']}")


async def test_stream_of_a_client_that_has_stopped_reading_is_reset(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path, JOBCAST_SEND_TIMEOUT="1") as server:
        _, writer = await unread_stream(server, f"/jobs/{job_id}/events", token())
        while "disconnected" not in server.log:
            await asyncio.to_thread(publish, *(line(job_id, LINE) for _ in range(10)))
        writer.close()


# --- the end of a connection ----------------------------------------------------------------------


async def test_stream_ends_when_its_token_expires(
    server: Server, token: Token, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    async with http_client(server.url, token(ttl=SHORT_LIVED)) as client:
        reader = await read_stream(client, f"/jobs/{job_id}/events")
    assert reader.names[-1] == "token_expiring"


async def test_stream_of_a_revoked_token_is_closed_with_the_reason(
    server: Server, valkey: Valkey, token: Token, publish: Publish, job_id: str
) -> None:
    publish(started(job_id))
    jti = new_id()
    async with http_client(server.url, token(jti=jti)) as client:
        async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
            await read_until(reader, chunks, "job_status")
            await asyncio.to_thread(revoke, jti=jti, ttl=600, settings=Settings(url=valkey.url))
            async for _ in chunks:
                pass
        assert reader.of("closing")[0]["code"] == "token_revoked"
        assert code_of(await client.get(f"/jobs/{job_id}"), 401) == "token_revoked"


async def test_draining_process_ends_its_streams_and_waiting_requests(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    with serving(valkey, tmp_path) as server:
        async with http_client(server.url, token()) as client:
            waiting = asyncio.create_task(client.get(f"/jobs/{job_id}?wait=60"))
            async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
                await read_until(reader, chunks, "job_status")
                await eventually(lambda: server.log.count(f"joined {job_id}") == 2, "joins")
                server.popen.send_signal(signal.SIGTERM)
                async for _ in chunks:
                    pass
            assert reader.names[-1] == "draining"
            assert (await waiting).json()["status"] == "started"
        assert await server.wait_exit() in (0, -signal.SIGTERM)
        assert "ASGI callable returned" not in server.log


async def test_limits_on_connections_count_streams(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    path = f"/jobs/{job_id}/events"
    for variable, status, code in (
        ("JOBCAST_MAX_CONNECTIONS_PER_SUBJECT", 429, "too_many_connections"),
        ("JOBCAST_MAX_CONNECTIONS_PER_ADDRESS", 429, "too_many_connections"),
    ):
        with serving(valkey, tmp_path, **{variable: "1"}) as server:
            async with http_client(server.url, token()) as client:
                async with streaming(client, path) as (reader, chunks):
                    await read_until(reader, chunks, "job_status")
                    assert code_of(await client.get(path), status) == code
                    # A request that does not last is no connection.
                    assert (await client.get(f"/jobs/{job_id}")).status_code == 200


# --- rights and authentication --------------------------------------------------------------------


async def test_rights_are_checked_again_at_the_configured_interval(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    forbidden = tmp_path / "forbidden"
    env = {
        "JOBCAST_AUTHORIZE": "tests.http_application:may_follow",
        "JOBCAST_REAUTHORIZE": "0.5",
        FORBIDDEN: str(forbidden),
    }
    with serving(valkey, tmp_path, **env) as server:
        async with (
            http_client(server.url, token()) as client,
            following(server.url, token()) as page,
            streaming(client, f"/jobs/{job_id}/events") as (reader, chunks),
        ):
            assert (await page.join(job_id))["ok"]
            await read_until(reader, chunks, "job_status")
            forbidden.touch()
            async for _ in chunks:
                pass
            await eventually(lambda: page.transcript.of(job_id, "left"), "left")
    assert reader.names[-1] == "left"
    assert reader.of("left")[0]["code"] == "job_not_found"


@pytest.mark.parametrize("function", ["user_of", "user_of_async"])
async def test_application_authenticates_clients_without_a_token(
    valkey: Valkey, publish: Publish, tmp_path: Path, job_id: str, function: str
) -> None:
    publish(started(job_id), complete(job_id))
    env = {"JOBCAST_AUTHENTICATE": f"tests.http_application:{function}", "JOBCAST_JWT_SECRET": ""}
    with serving(valkey, tmp_path, **env) as server:
        async with http_client(server.url) as client:
            path = f"/jobs/{job_id}/events"
            assert code_of(await client.get(path), 401) == "token_missing"
            reader = await read_stream(client, path, Cookie="session=alice")
            assert reader.names[-1] == "job_complete"
            bob = {"Cookie": "session=bob"}
            assert code_of(await client.get(path, headers=bob), 404) == "job_not_found"
            if function == "user_of":
                broken = {"Cookie": "session=broken"}
                assert code_of(await client.get(path, headers=broken), 500) == "internal_error"
                operator = await client.get(path, headers={"Cookie": "session=everything"})
                assert operator.status_code == 200
        async with following(server.url, "", headers={"Cookie": "session=alice"}) as page:
            assert (await page.join(job_id))["ok"]


async def test_token_in_the_query_needs_a_setting_and_is_not_logged(
    valkey: Valkey, server: Server, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    secret = token()
    path = f"/jobs/{job_id}?token={secret}"
    async with http_client(server.url) as client:
        assert code_of(await client.get(path), 401) == "token_missing"
    with serving(valkey, tmp_path, JOBCAST_TOKEN_IN_QUERY="true") as lenient:
        async with http_client(lenient.url) as client:
            assert (await client.get(path)).json()["status"] == "started"
        await eventually(lambda: f"/jobs/{job_id}?token=***" in lenient.log, "access log")
        assert secret not in lenient.log
    assert secret not in server.log


async def test_pages_of_listed_origins_only_may_read_answers(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id))
    page = "https://app.example.com"
    path = f"/jobs/{job_id}"
    with serving(valkey, tmp_path, JOBCAST_CORS_ORIGINS=page) as server:
        async with http_client(server.url, token()) as client:
            preflight = await client.options(
                path, headers={"Origin": page, "Access-Control-Request-Method": "GET"}
            )
            assert preflight.status_code == 204
            assert "Authorization" in preflight.headers["access-control-allow-headers"]
            answer = await client.get(path, headers={"Origin": page})
            for response in (preflight, answer):
                assert response.headers["access-control-allow-origin"] == page
                assert response.headers["access-control-allow-credentials"] == "true"
                assert response.headers["vary"] == "Origin"
            evil = await client.get(path, headers={"Origin": "https://evil.example"})
            assert code_of(evil, 403) == "forbidden"
            refusal = "refused a page of the origin 'https://evil.example'"
            await eventually(lambda: refusal in server.log, "refusal in the log")
            # Its page may read the refusal, and nothing else.
            assert evil.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in evil.headers
            assert set(evil.json()) == {"type", "title", "status", "code", "detail"}
            asks = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
            assert code_of(await client.options(path, headers=asks), 403) == "forbidden"
            own = await client.get(path, headers={"Origin": server.url})
            assert own.status_code == 200
            # A page can read why its request was refused.
            refused = await client.get("/jobs/", headers={"Origin": page})
            assert code_of(refused, 400) == "invalid_request"
            assert refused.headers["access-control-allow-origin"] == page
            too_long = await client.get(f"{path}?{LINE * 3}", headers={"Origin": page})
            assert code_of(too_long, 414) == "invalid_request"
            assert too_long.headers["access-control-allow-origin"] == page


# --- the interface --------------------------------------------------------------------------------


async def test_description_is_valid_openapi(server: Server) -> None:
    async with http_client(server.url) as client:
        description = (await client.get("/openapi.json")).json()
    validate(description)
    assert set(description["paths"]) == {
        "/jobs/{job_id}",
        "/jobs/{job_id}/events",
        "/jobs/{job_id}/cancel",
        "/events",
        "/jobs",
        "/feeds/{feed}/events",
    }


async def test_interface_is_below_the_path_prefix_and_can_be_switched_off(
    valkey: Valkey, publish: Publish, token: Token, tmp_path: Path, job_id: str
) -> None:
    publish(started(job_id), complete(job_id))
    env = {"JOBCAST_PATH_PREFIX": "/jobs"}
    with running(Server(tmp_path / "prefix.log", valkey.url, env)) as server:
        server.expect(lambda: "Uvicorn running" in server.log, "server")
        async with http_client(f"{server.url}/jobs", token()) as client:
            assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "complete"
            assert (await read_stream(client, f"/jobs/{job_id}/events")).seqs == [1, 2]
            description = (await client.get("/openapi.json")).json()
            assert description["servers"] == [{"url": "/jobs"}]
    with serving(valkey, tmp_path, JOBCAST_HTTP_API="false") as server:
        async with http_client(server.url, token()) as client:
            for path in (f"/jobs/{job_id}", "/events", "/openapi.json"):
                assert (await client.get(path)).status_code == 404
