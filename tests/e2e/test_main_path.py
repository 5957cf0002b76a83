"""A real prefork worker, a real Valkey, the real server, and a stock client."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import jobs
from tests.support import Server, Worker, eventually, following, new_id

Token = Callable[..., str]
Send = Callable[..., str]


@pytest.mark.parametrize("transports", [("websocket",), ("polling",), ("polling", "websocket")])
async def test_job_is_followed_from_before_its_start_to_its_end(
    server: Server, worker: Worker, send: Send, token: Token, transports: tuple[str, ...]
) -> None:
    job_id = new_id()
    async with following(server.url, token(jobs=[job_id]), transports) as alice:
        answer = await alice.join(job_id)
        assert answer == {
            "ok": True, "job_id": job_id, "status": "pending", "epoch": "", "seq": 0,
            "recovered": False,
        }  # fmt: skip
        send(worker, jobs.count, 10, task_id=job_id)
        end = await alice.transcript.end(job_id)
        assert end["result"] == {"steps": 10}

        names = alice.transcript.names(job_id)
        assert names[0] == "joined"
        assert names[-1] == "job_complete"
        statuses = [e["status"] for e in alice.transcript.of(job_id, "job_status")]
        assert statuses == ["queued", "started"]
        messages = [e["message"] for e in alice.transcript.of(job_id, "job_log")]
        assert messages == [f"step {n}" for n in range(10)]
        percentages = [e["percentage"] for e in alice.transcript.of(job_id, "job_progress")]
        assert percentages == sorted(percentages)
        assert percentages[-1] == 100
        seqs = alice.transcript.seqs(job_id)
        assert seqs == sorted(set(seqs))


async def test_late_join_receives_the_state_at_once(
    server: Server, worker: Worker, send: Send, token: Token, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job_id = send(worker, jobs.count, 10, str(gate))
    async with following(server.url, token()) as early:
        await early.join(job_id)
        await eventually(
            lambda: [e for e in early.transcript.of(job_id, "job_log") if e["message"] == "step 5"],
            "job half-way",
        )
        async with following(server.url, token()) as late:
            answer = await late.join(job_id)
            assert answer["status"] == "started"
            # The whole history precedes the acknowledgement.
            assert [e["message"] for e in late.transcript.of(job_id, "job_log")] == [
                f"step {n}" for n in range(6)
            ]
            [progress] = late.transcript.of(job_id, "job_progress")
            assert progress["percentage"] == 50
            assert progress["message"] == "counting"
            assert progress["current"] == 5
            gate.touch()
            await late.transcript.end(job_id)
            await early.transcript.end(job_id)
            assert [e["message"] for e in late.transcript.of(job_id, "job_log")] == [
                f"step {n}" for n in range(10)
            ]
            seqs = late.transcript.seqs(job_id)
            assert seqs == sorted(set(seqs))

    async with following(server.url, token()) as last:
        answer = await last.join(job_id)
        assert answer["status"] == "complete"
        assert last.transcript.names(job_id)[-1] == "job_complete"
        assert len(last.transcript.of(job_id, "job_log")) == 10
        assert len(last.transcript.of(job_id, "job_progress")) == 1


async def test_jobs_on_one_connection_are_separate_and_a_left_job_sends_nothing(
    server: Server, worker: Worker, send: Send, token: Token, tmp_path: Path
) -> None:
    gates = [tmp_path / "a", tmp_path / "b"]
    a, b = (send(worker, jobs.count, 6, str(gate)) for gate in gates)
    async with following(server.url, token()) as alice:
        await alice.join(a)
        await alice.join(b)
        for job_id in (a, b):
            await alice.transcript.wait_logged(job_id, 4)
        assert (await alice.leave(a)) == {"ok": True, "job_id": a}
        seen = len(alice.transcript.of(a))
        for gate in gates:
            gate.touch()
        await alice.transcript.end(b)
        # The witness sees the end of job a, so alice's connection would have it by now.
        async with following(server.url, token()) as witness:
            await witness.join(a)
            await witness.transcript.end(a)
        assert len(alice.transcript.of(a)) == seen
        assert alice.transcript.names(b)[-1] == "job_complete"
        for job_id in (a, b):
            assert {e["job_id"] for e in alice.transcript.of(job_id)} == {job_id}


async def test_owner_sees_failures_and_retries(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    async with following(server.url, token("bob")) as bob:
        failing = send(worker, jobs.fail, "no such row at redis://bob:hunter2@db/0", owner="bob")
        assert (await bob.join(failing))["ok"]
        end = await bob.transcript.end(failing)
        assert (end["error"], end["reason"]) == ("LookupError", "failure")
        assert end["message"] == "no such row at redis://***@db/0"

        retried = send(worker, jobs.flaky, owner="bob")
        await bob.join(retried)
        end = await bob.transcript.end(retried)
        assert end["result"] == 2
        statuses = bob.transcript.of(retried, "job_status")
        assert [(e["status"], e.get("attempt")) for e in statuses] == [
            ("queued", None), ("started", 1), ("retrying", 2), ("started", 2), ("retrying", 3),
            ("started", 3),
        ]  # fmt: skip
        assert statuses[2]["error"] == "ConnectionError"
        assert statuses[2]["message"] == "try 1"


async def test_child_job_belongs_to_the_owner_of_its_parent(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    async with following(server.url, token("bob")) as bob:
        parent = send(worker, jobs.parent, owner="bob")
        await bob.join(parent)
        child = (await bob.transcript.end(parent))["result"]
        assert (await bob.join(child))["status"] == "queued"


async def test_last_of_a_million_progress_calls_is_delivered(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    job_id = send(worker, jobs.spin, 1_000_000)
    async with following(server.url, token()) as alice:
        await alice.join(job_id)
        await alice.transcript.end(job_id)
        last = alice.transcript.of(job_id, "job_progress")[-1]
        assert (last["percentage"], last["message"]) == (100, "the last one")


async def test_only_log_records_of_the_task_are_delivered(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    job_id = send(worker, jobs.logs)
    async with following(server.url, token()) as alice:
        await alice.join(job_id)
        await alice.transcript.end(job_id)
        logs = [(e["level"], e["message"]) for e in alice.transcript.of(job_id, "job_log")]
        assert logs == [
            ("info", "from a library"),
            ("warning", "from the task logger"),
            ("error", "with a traceback"),
            ("error", "from deep below"),
        ]


async def test_hooks_decide_which_data_leaves_the_worker(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    async with following(server.url, token()) as alice:
        good = send(worker, jobs.discreet, ["secret", "rows"])
        await alice.join(good)
        assert (await alice.transcript.end(good))["result"] == {"rows": 2}
        assert "calls no super()" in alice.transcript.of(good, "job_log")[-1]["message"]
        bad = send(worker, jobs.discreet, [])
        await alice.join(bad)
        end = await alice.transcript.end(bad)
        assert end["message"] == "PermissionError: ask the operators"
        large = send(worker, jobs.big_result)
        await alice.join(large)
        assert (await alice.transcript.end(large))["result"] == {
            "omitted": "too_large", "type": "str", "bytes": 1_000_002, "limit": 65536,
        }  # fmt: skip
    assert "hunter2" not in str(alice.transcript.events)


async def test_no_job_is_current_after_a_task(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    async with following(server.url, token()) as alice:
        job_id = send(worker, jobs.ignored)
        await alice.join(job_id)
        await eventually(lambda: alice.transcript.of(job_id, "job_log"), "log line")
    # More tasks than children, so that the child of the ignored job runs one too.
    others = [jobs.who_is_current.apply_async(queue=worker.name) for _ in range(6)]
    assert {worker.wait_result(other.id) for other in others} == {"None"}


async def test_stages_share_the_total_progress(
    server: Server, worker: Worker, send: Send, token: Token
) -> None:
    job_id = send(worker, jobs.staged)
    async with following(server.url, token()) as alice:
        await alice.join(job_id)
        await alice.transcript.end(job_id)
        last = alice.transcript.of(job_id, "job_progress")[-1]
        assert (last["percentage"], last["stage"]) == (100, "write")
