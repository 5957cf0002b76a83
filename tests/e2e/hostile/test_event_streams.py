"""Attacks on the HTTP interface: event streams, and requests for the state of a job."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from jobcast import log_safety
from tests.e2e.hostile.conftest import (
    AUTHENTICATED_LOG_LINES,
    Serve,
    Token,
    Undisturbed,
    cancel_attacks,
    wait_for_events,
    wait_until_only_innocent_is_connected,
)
from tests.support import TIMEOUT, eventually, wire
from tests.support.attacks.attack import Seen, Target
from tests.support.attacks.catalogue import BY_NAME
from tests.support.attacks.event_streams import (
    malformed_requests,
    many_jobs,
    status_of,
    stream_request,
)
from tests.support.attacks.history import LINES
from tests.support.attacks.server import Served
from tests.support.sse import EventReader, http_client, read_until, streaming
from tests.support.wire import Gone, Wire

OTHER_ADDRESS = "127.0.0.2"
STREAMS = 1000
SUBJECTS = 20  # so that the request budget of none is exceeded
ALLOWED = 300  # connections
KEPT_FILES = 20  # a busy process opens and keeps more connections to the store
CHUNK = 512 * 1024  # bytes that a slow client reads at a time
LONGEST_LINE = log_safety.LONGEST_LINE + 200  # characters, with the time and the status


async def test_stream_that_is_not_read_is_cut(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client, asyncio.timeout(TIMEOUT):
        seen = Seen()
        await asyncio.gather(*(BY_NAME["unread-streams"].once(target, seen) for _ in range(20)))
        await wait_for_events(client)
        await wait_until_only_innocent_is_connected(served)


async def test_slow_but_steady_reader_of_a_stream_gets_every_line(
    serve: Serve, token: Token, long_job: str, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_SEND_TIMEOUT="8")
    async with undisturbed(served), Wire(served.url, window=wire.SMALL_WINDOW) as connection:
        path = f"/jobs/{long_job}/events"
        await connection.send(stream_request(path, token(jobs=[long_job])))
        await connection.read_head()
        reader, lines = EventReader(), 0
        while lines < LINES:  # for more than 8 s
            before = connection.received
            while connection.received - before < CHUNK and lines < LINES:
                reader.feed((await connection.read_chunk()).decode())
                lines = len(reader.of("job_log"))
            await asyncio.sleep(0.6)
        numbers = [line["message"].lstrip("x") for line in reader.of("job_log")]
        assert numbers == [str(n) for n in range(LINES)]


async def test_stream_of_a_half_closed_connection_ends(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served), Wire(served.url) as connection:
        await connection.send(stream_request("/jobs/unknown/events", target.token))
        assert status_of(await connection.read_head()) == 200
        connection.end_sending()
        await wait_until_only_innocent_is_connected(served)


@dataclass
class Crowd:
    """Streams that are opened at once, by several subjects at another address."""

    served: Served
    tokens: list[str]
    heads: list[str] = field(default_factory=list)  # of the answers
    resets: int = 0
    wires: list[Wire] = field(default_factory=list)

    async def open(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*map(self._open_one, range(STREAMS)))

    async def _open_one(self, number: int) -> None:
        connection = Wire(self.served.url, source=OTHER_ADDRESS)
        self.wires.append(connection)
        path = f"/jobs/unknown-{number % 100}/events"
        try:
            await connection.open()
            await connection.send(stream_request(path, self.tokens[number % SUBJECTS]))
            self.heads.append(await connection.read_head())
        except Gone:
            self.resets += 1

    @property
    def statuses(self) -> Counter[int]:
        return Counter(map(status_of, self.heads))

    def close(self) -> None:
        for connection in self.wires:
            connection.close()


@pytest.mark.parametrize(
    ("setting", "limit", "refusals"),
    [
        ("JOBCAST_MAX_CONNECTIONS", ALLOWED, {503}),
        ("JOBCAST_MAX_CONNECTIONS_PER_ADDRESS", ALLOWED, {429}),
        ("JOBCAST_MAX_CONNECTIONS_PER_SUBJECT", ALLOWED // SUBJECTS, {429}),
    ],
)
async def test_thousand_streams_at_once_are_limited_and_leave_nothing_behind(
    serve: Serve, token: Token, undisturbed: Undisturbed,
    setting: str, limit: int, refusals: set[int],
) -> None:  # fmt: skip
    served = serve(**{setting: str(limit)})
    async with undisturbed(served) as client:
        files = served.files()
        crowd = Crowd(served, [token(f"mallory-{n}", jobs=["*"]) for n in range(SUBJECTS)])
        try:
            await crowd.open()
            await wait_for_events(client)
        finally:
            crowd.close()
        if setting == "JOBCAST_MAX_CONNECTIONS":
            # uvicorn's protocol resets connections above this limit, before they send a request.
            assert 0 < crowd.statuses[200] < ALLOWED
        else:
            assert crowd.statuses[200] == ALLOWED
            assert crowd.resets == 0
        assert set(crowd.statuses) - {200} <= refusals
        for head in crowd.heads:
            if status_of(head) != 200:
                assert "\r\nretry-after: 5\r\n" in head.lower(), head
                assert "application/problem+json" in head
        await wait_until_only_innocent_is_connected(served)
        await eventually(lambda: served.files() <= files + KEPT_FILES, "closed files")


async def test_malformed_requests_are_refused_and_leave_no_traceback(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    """Tokens, positions, job ids and parameters are garbage, too long or too many."""
    async with undisturbed(served) as client:
        lines = len(served.log.splitlines())
        for data in malformed_requests(target.token, target.job_id):
            async with asyncio.timeout(TIMEOUT), Wire(served.url) as connection:
                await connection.send(data)
                try:
                    head = await connection.read_head()
                except Gone:
                    continue
                assert status_of(head) in (400, 401, 404, 414, 431), (data[:200], head)
        await wait_for_events(client)
        log = served.log.splitlines()[lines:]
        assert len(log) < AUTHENTICATED_LOG_LINES
        assert all(len(line) < LONGEST_LINE for line in log)
        assert not any(target.token in line for line in log)


@pytest.mark.parametrize(("jobs", "status"), [(51, 400), (500, 400), (5000, 414)])
async def test_stream_of_too_many_jobs_is_refused(
    shared: Served, token: Token, jobs: int, status: int
) -> None:
    async with http_client(shared.url, token(jobs=["*"])) as client:
        answer = await client.get(f"/events?{many_jobs(jobs)}")
    assert answer.status_code == status


async def test_repeated_job_in_a_stream_is_followed_once(
    shared: Served, token: Token, undisturbed: Undisturbed
) -> None:
    async with undisturbed(shared), Wire(shared.url) as connection:
        await connection.send(
            stream_request("/events?" + "&".join(["job=unknown"] * 1000), token(jobs=["*"]))
        )
        assert status_of(await connection.read_head()) == 200
        reader = EventReader()
        while not reader.of("joined"):
            reader.feed((await connection.read_chunk()).decode())
        assert shared.gauges() == {"jobcast_connections": 2, "jobcast_jobs_followed": 2}


async def test_reconnect_storm_of_a_long_history_is_limited(
    served: Served, target: Target, undisturbed: Undisturbed, token: Token
) -> None:
    async with undisturbed(served) as client:
        seen = Seen()
        attack = BY_NAME["stream-reconnects"]
        storm = [asyncio.create_task(attack.persist(target, seen)) for _ in range(5)]
        await eventually(lambda: seen.statuses["429"] >= 20, "refusals")
        await wait_for_events(client)
        async with http_client(served.url, token("another", jobs=["*"])) as other:
            state = await other.get(f"/jobs/{target.job_id}")
            assert state.json()["log_lines"] == LINES
        await cancel_attacks(*storm)
        assert set(seen.statuses) <= {"200", "429"}


async def test_abandoned_waits_leave_nothing_behind(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served) as client:
        files, seen = served.files(), Seen()
        attack = BY_NAME["abandoned-waits"]
        waits = [asyncio.create_task(attack.persist(target, seen)) for _ in range(5)]
        await eventually(lambda: seen.sent > 500_000, "a thousand requests")
        await wait_for_events(client)
        await cancel_attacks(*waits)
        await wait_until_only_innocent_is_connected(served)
        await eventually(lambda: served.files() <= files + KEPT_FILES, "closed files")


async def test_waits_are_connections_that_the_limit_counts(
    serve: Serve, token: Token, undisturbed: Undisturbed
) -> None:
    served = serve(JOBCAST_MAX_CONNECTIONS_PER_SUBJECT="10")
    async with undisturbed(served), http_client(served.url, token(jobs=["*"])) as client:
        waits = [asyncio.create_task(client.get(f"/jobs/unknown-{n}?wait=60")) for n in range(30)]
        await eventually(lambda: sum(wait.done() for wait in waits) == 20, "refusals")
        for answer in [wait.result() for wait in waits if wait.done()]:
            assert answer.status_code == 429
            assert answer.json()["code"] == "too_many_connections"
            assert int(answer.headers["retry-after"]) > 0
        await cancel_attacks(*waits)


async def test_token_in_the_query_is_refused_and_not_logged(
    served: Served, target: Target, undisturbed: Undisturbed
) -> None:
    async with undisturbed(served), http_client(served.url) as client:
        for path in (f"/jobs/{target.job_id}", f"/jobs/{target.job_id}/events", "/events"):
            answer = await client.get(f"{path}?job=a&token={target.token}")
            assert answer.status_code == 401
        await eventually(lambda: served.log.count("token_missing") >= 3, "log lines")
        assert target.token not in served.log
        assert target.token.rpartition(".")[2] not in served.log


async def test_stream_of_an_innocent_client_is_complete_during_attacks(
    served: Served, target: Target, undisturbed: Undisturbed, token: Token
) -> None:
    """All attacks on the interface run at once, each over two connections."""
    async with undisturbed(served) as innocent:
        seen = Seen()
        names = ("streams", "unread-streams", "stream-reconnects", "abandoned-waits")
        attacks = [BY_NAME[name].persist(target, seen) for name in names for _ in range(2)]
        tasks = [asyncio.create_task(attack) for attack in attacks]
        await eventually(lambda: seen.statuses["429"] >= 20, "refusals")
        path = f"/jobs/{innocent.publisher.job_id}/events"
        async with (
            asyncio.timeout(TIMEOUT),
            http_client(served.url, token("reader", jobs=["*"])) as client,
            streaming(client, path) as (reader, chunks),
        ):
            await read_until(reader, chunks, "job_log", len(innocent.publisher.published) + 100)
        numbers = [int(line["message"]) for line in reader.of("job_log")]
        assert numbers == list(range(len(numbers)))
        await cancel_attacks(*tasks)
