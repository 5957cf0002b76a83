"""A returning stock client sends its cursor and receives missed events or the whole history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jobcast.testing import log, started
from jobcast.transports import DEFAULT_HISTORY_SIZE, Outgoing, Retention, open_publisher
from tests import jobs
from tests.conftest import Valkey
from tests.support import Follower, Server, Worker, following

Send = Callable[..., str]
Token = Callable[..., str]

SIZE = 100  # events in the history


def lines(follower: Follower, job_id: str) -> list[str]:
    return [event["message"] for event in follower.transcript.of(job_id, "job_log")]


async def test_resumed_join_receives_exactly_the_missed_events(
    server: Server, worker: Worker, send: Send, token: Token, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.count, 20, str(gate))
    async with following(server.url, token()) as alice:
        first = await alice.join(job_id)
        assert first["recovered"] is False
        await alice.transcript.wait_logged(job_id, 11)
        seen = alice.transcript.seqs(job_id)[-1]
    gate.touch()
    async with following(server.url, token()) as other:
        await other.join(job_id)
        await other.transcript.end(job_id)

    async with following(server.url, token()) as alice:
        answer = await alice.join(job_id, after={"epoch": first["epoch"], "seq": seen})
        assert (answer["recovered"], answer["status"]) == (True, "complete")
        await alice.transcript.end(job_id)
        assert lines(alice, job_id) == [f"step {n}" for n in range(11, 20)]
        assert min(alice.transcript.seqs(job_id)) > seen
        assert not alice.transcript.of(job_id, "job_status")

    async with following(server.url, token()) as alice:
        answer = await alice.join(job_id, after={"epoch": first["epoch"], "seq": answer["seq"]})
        assert answer["recovered"] is True
        assert alice.transcript.names(job_id) == ["joined"]


async def test_cursor_of_another_record_receives_the_whole_history(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    job_id = send(worker, jobs.count, 5)
    async with following(server.url, token()) as alice:
        await alice.join(job_id)
        await alice.transcript.end(job_id)
        for cursor in ({"epoch": "another", "seq": 3}, {"epoch": "", "seq": 0}):
            before = len(alice.transcript.events)
            answer = await alice.join(job_id, after=cursor)
            assert (answer["ok"], answer["recovered"]) == (True, False)
            again = alice.transcript.events[before:]
            assert again[0][0] == "joined"
            assert [data["message"] for name, data in again if name == "job_log"] == [
                f"step {n}" for n in range(5)
            ]
        # A cursor ahead of the record belongs to an expired record.
        ahead = {"epoch": answer["epoch"], "seq": answer["seq"] + 1}
        assert (await alice.join(job_id, after=ahead))["recovered"] is False


async def test_late_follower_of_a_long_log_gets_the_beginning_and_the_gap(
    server: Server, worker: Worker, send: Send, token: Token, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.count, 1500, str(gate))
    async with following(server.url, token()) as early:
        await early.join(job_id)
        gate.touch()
        await early.transcript.end(job_id)
        whole = [event["seq"] for event in early.transcript.of(job_id, "job_log")]
        assert len(whole) == 1500
    async with following(server.url, token()) as late:
        answer = await late.join(job_id)
        assert (answer["status"], answer["recovered"]) == ("complete", False)
        events = [(name, data) for name, data in late.transcript.events if name.startswith("jo")]
    (_, joined), (_, queued), (_, started), (gap_name, gap), *rest = events
    assert (queued["status"], started["status"]) == ("queued", "started")
    assert (started["task"], started["attempt"]) == ("tests.jobs.count", 1)
    assert started["timestamp"] >= queued["timestamp"]
    kept = [data["seq"] for name, data in rest if name == "job_log"]
    assert DEFAULT_HISTORY_SIZE <= len(kept) < 1500
    assert kept == whole[-len(kept) :]
    last_trimmed = whole[-len(kept) - 1]
    assert gap_name == "job_gap"
    assert gap == {"job_id": job_id, "after": 0, "before": last_trimmed + 1}
    assert joined["complete_from"] == last_trimmed + 1
    assert rest[-1][0] == "job_complete"


async def test_cursor_older_than_the_history_receives_the_remaining_events(
    server: Server, valkey: Valkey, token: Token, job_id: str
) -> None:
    publisher = open_publisher(valkey.url, Retention(ttl=60, size=SIZE))
    publisher.publish([Outgoing.of(started(job_id)), Outgoing.of(log(job_id, "first"))])
    async with following(server.url, token(jobs=[job_id])) as alice:
        first = await alice.join(job_id)
        publisher.publish([Outgoing.of(log(job_id, n)) for n in range(10 * SIZE)])
        publisher.close()
        await alice.transcript.wait_logged(job_id, 10 * SIZE + 1)
        before = len(alice.transcript.events)
        cursor = {"epoch": first["epoch"], "seq": first["seq"]}
        answer = await alice.join(job_id, after=cursor)
        assert (answer["recovered"], answer["epoch"]) == (False, first["epoch"])
        left = [
            data["message"] for name, data in alice.transcript.events[before:] if name == "job_log"
        ]
        assert SIZE <= len(left) < 10 * SIZE
        assert left == [str(n) for n in range(10 * SIZE - len(left), 10 * SIZE)]
        [gap] = alice.transcript.of(job_id, "job_gap")
        oldest = 10 * SIZE - len(left) + 3  # seq; two events precede the numbered lines
        assert gap == {"job_id": job_id, "after": first["seq"], "before": oldest}
