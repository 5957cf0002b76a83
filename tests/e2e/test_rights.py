"""Rights that end during a connection: a new owner, a reduced token, a failing rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobcast.events import JobLog
from jobcast.transports import Origin, Outgoing, open_publisher
from jobcast.transports.redis.names import Keys
from tests.conftest import Valkey
from tests.e2e.raw import raw_client
from tests.support import Follower, Server, eventually, following, new_id, running

Token = Callable[..., str]


def publish_lines(url: str, job_id: str, owner: str, *lines: str) -> None:
    """Publish log lines of an owner's job."""
    publisher = open_publisher(url)
    events = [JobLog(job_id=job_id, level="info", message=line) for line in lines]
    publisher.publish([Outgoing.of(event, Origin(owner or None)) for event in events])
    publisher.close()


def expire_record(valkey: Valkey, job_id: str) -> None:
    """Delete a job's record as its expiry does."""
    keys = Keys.of(job_id)
    valkey.command("DEL", keys.state, keys.lines)


def lines(follower: Follower, job_id: str) -> list[str]:
    return [event["message"] for event in follower.transcript.of(job_id, "job_log")]


async def test_reused_job_id_is_withdrawn_from_its_former_owner(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id("nightly")
    publish_lines(valkey.url, job_id, "alice", "alice's")
    async with (
        following(server.url, token("alice")) as alice,
        following(server.url, token("root", jobs=["*"])) as root,
        following(server.url, token("bob")) as bob,
    ):
        for follower in (alice, root):
            assert (await follower.join(job_id))["ok"]
            await follower.transcript.wait_logged(job_id, 1)
        expire_record(valkey, job_id)
        publish_lines(valkey.url, job_id, "bob", "bob's 1")
        await root.transcript.wait_logged(job_id, 2)
        [left] = await eventually(lambda: alice.transcript.of(job_id, "left"), "withdrawal")
        assert left["code"] == "job_not_found"
        assert (await alice.join(job_id))["code"] == "job_not_found"
        assert (await bob.join(job_id))["ok"]
        publish_lines(valkey.url, job_id, "bob", "bob's 2")
        await bob.transcript.wait_logged(job_id, 2)
        await root.transcript.wait_logged(job_id, 3)
        assert lines(alice, job_id) == ["alice's"]
        assert lines(bob, job_id) == ["bob's 1", "bob's 2"]
        assert lines(root, job_id) == ["alice's", "bob's 1", "bob's 2"]
        assert alice.transcript.names(job_id) == ["joined", "job_log", "left"]
        assert root.transcript.names(job_id).count("joined") == 2


async def test_reduced_token_leaves_jobs_before_its_refresh_is_acknowledged(
    server: Server, valkey: Valkey, token: Token
) -> None:
    own, listed, other = new_id(), new_id(), new_id()
    publish_lines(valkey.url, own, "alice", "own")
    for job_id in (listed, other):
        publish_lines(valkey.url, job_id, "bob", "bob's")
    async with raw_client(server.url, token("alice", jobs=[listed, other])) as alice:
        for job_id in (own, listed, other):
            await alice.join(job_id)
        reduced = token("alice", jobs=[other])
        await alice.send(f"427{json.dumps(['refresh_token', {'token': reduced}])}")
        answer = await alice.read_until(lambda packet: packet.startswith("437"))
        assert json.loads(answer[3:])[0]["ok"]
        [left] = alice.events("left")
        assert (left["job_id"], left["code"]) == (listed, "job_not_found")
        for job_id in (listed, own, other):
            publish_lines(valkey.url, job_id, "bob", "after")
        await alice.read_until(lambda packet: "job_log" in packet and other in packet)
        after = {e["job_id"] for e in alice.events("job_log") if e["message"] == "after"}
        assert after <= {own, other}


async def test_refused_repeated_join_leaves_the_job(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "from pathlib import Path\n"
        f"FOLDER = Path({str(tmp_path)!r})\n"
        "def allow(subject, action, target):\n"
        "    if (FOLDER / 'broken').exists():\n"
        "        raise RuntimeError('database is down')\n"
        "    return not (FOLDER / 'closed').exists()\n"
    )
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(tmp_path)}
    job_id, other = new_id(), new_id()
    publish_lines(valkey.url, job_id, "bob", "1")
    publish_lines(valkey.url, other, "bob", "1")
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with following(process.url, token("alice")) as alice:
            for switch, code in (("broken", "internal_error"), ("closed", "job_not_found")):
                for joined in (job_id, other):
                    assert (await alice.join(joined))["ok"]
                seen = len(lines(alice, job_id))
                (tmp_path / switch).touch()
                assert (await alice.join(job_id))["code"] == code
                # Events arrive in order, so a line of another job shows that nothing is pending.
                publish_lines(valkey.url, job_id, "bob", "not for alice")
                publish_lines(valkey.url, other, "bob", switch)
                await eventually(lambda: switch in lines(alice, other), "line")  # noqa: B023
                assert len(lines(alice, job_id)) == seen
                (tmp_path / switch).unlink()
                expire_record(valkey, job_id)
                publish_lines(valkey.url, job_id, "bob", "1")


async def test_refresh_changes_nothing_if_the_rule_fails(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "def allow(subject, action, target):\n"
        "    return {'good': True, 'bad': False}[subject.claims['jobs'][0]]\n"
    )
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(tmp_path)}
    one, two = new_id(), new_id()
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with following(process.url, token("alice", jobs=["good"])) as alice:
            for job_id in (one, two):
                assert (await alice.join(job_id))["ok"]
            broken = {"token": token("alice", jobs=["broken"])}
            assert (await alice.request("refresh_token", broken))["code"] == "internal_error"
            # The connection keeps its current token.
            publish_lines(valkey.url, one, "bob", "1")
            await alice.transcript.wait_logged(one, 1)
            assert (await alice.join(new_id()))["ok"]
            reduced = {"token": token("alice", jobs=["bad"])}
            assert (await alice.request("refresh_token", reduced))["ok"]
            for job_id in (one, two):
                await eventually(lambda: alice.transcript.of(job_id, "left"), "left")  # noqa: B023
            assert (await alice.join(one))["code"] == "job_not_found"


async def test_failing_rule_denies_a_new_record_and_delays_no_other_job(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        f"FOLDER = Path({str(tmp_path)!r})\n"
        "def allow(subject, action, target):\n"
        "    if target.owner == 'failing':\n"
        "        raise RuntimeError('database is down')\n"
        "    while target.owner == 'slow' and not (FOLDER / 'answers').exists():\n"
        "        time.sleep(0.01)\n"
        "    return True\n"
    )
    env = {
        "JOBCAST_AUTHORIZE": "rules:allow", "JOBCAST_AUTHORIZE_TIMEOUT": "60",
        "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    broken, slow, quick = new_id("broken"), new_id("slow"), new_id("quick")
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with following(process.url, token("alice")) as alice:
            for job_id in (broken, slow, quick):
                publish_lines(valkey.url, job_id, "alice", "1")
                assert (await alice.join(job_id))["ok"]
            for job_id, owner in ((broken, "failing"), (slow, "slow"), (quick, "bob")):
                expire_record(valkey, job_id)
                publish_lines(valkey.url, job_id, owner, "2")
            await alice.transcript.wait_logged(quick, 2)
            [left] = await eventually(lambda: alice.transcript.of(broken, "left"), "end")
            assert left["code"] == "internal_error"
            assert lines(alice, broken) == lines(alice, slow) == ["1"]
            warning = "JOBCAST_AUTHORIZE raised an exception for 1 of 1 followers"
            await eventually(lambda: warning in process.log, warning)
            (tmp_path / "answers").touch()
            await alice.transcript.wait_logged(slow, 2)
            assert alice.transcript.names(slow) == ["joined", "job_log", "joined", "job_log"]


async def test_job_that_gains_an_owner_is_withdrawn_from_other_subjects(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "def allow(subject, action, target):\n    return target.owner in (None, subject.sub)\n"
    )
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(tmp_path)}
    job_id, other = new_id(), new_id()
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with (
            following(process.url, token("alice")) as alice,
            following(process.url, token("mallory")) as mallory,
        ):
            # An emit before the job is sent has no owner.
            publish_lines(valkey.url, job_id, "", "unowned")
            for follower in (alice, mallory):
                assert (await follower.join(job_id))["ok"]
                assert (await follower.join(other))["ok"]
            publish_lines(valkey.url, job_id, "alice", "alice's")
            await eventually(lambda: "alice's" in lines(alice, job_id), "line")
            await eventually(lambda: mallory.transcript.of(job_id, "left"), "withdrawal")
            publish_lines(valkey.url, other, "", "after")
            await mallory.transcript.wait_logged(other, 1)
            assert lines(mallory, job_id) == ["unowned"]
            assert mallory.transcript.names(job_id) == ["joined", "job_log", "left"]
            assert lines(alice, job_id) == ["unowned", "unowned", "alice's"]
            assert alice.transcript.names(job_id).count("joined") == 2


RAISES = {
    "stops": "next(iter(()))",  # a query without rows
    "exits": "sys.exit('no')",
    "cancels": "raise asyncio.CancelledError",
    "async-exits": "sys.exit('no')",
    "async-cancels": "raise asyncio.CancelledError",
}


@pytest.mark.parametrize("exception", RAISES)
async def test_any_exception_of_a_rule_is_answered_with_a_code(
    exception: str, valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "import asyncio, sys\n"
        f"{'async ' if 'async' in exception else ''}def allow(subject, action, target):\n"
        "    if target.owner == 'failing':\n"
        f"        {RAISES[exception]}\n"
        "    return True\n"
    )
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(tmp_path)}
    job_id, broken = new_id(), new_id("broken")
    publish_lines(valkey.url, broken, "failing", "1")
    publish_lines(valkey.url, job_id, "alice", "1")
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with following(process.url, token("alice")) as alice:
            assert (await alice.join(broken))["code"] == "internal_error"
            assert (await alice.join(job_id))["ok"]
            expire_record(valkey, job_id)
            publish_lines(valkey.url, job_id, "failing", "2")
            [left] = await eventually(lambda: alice.transcript.of(job_id, "left"), "end")
            assert left["code"] == "internal_error"
            expire_record(valkey, job_id)
            publish_lines(valkey.url, job_id, "alice", "3")
            assert (await alice.join(job_id))["ok"]
            assert process.popen.poll() is None


@pytest.mark.parametrize(
    ("kind", "wait"), [("def", "time.sleep(3600)"), ("async def", "await asyncio.sleep(3600)")]
)
async def test_hanging_rule_delays_no_other_follower(
    kind: str, wait: str, valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    (tmp_path / "rules.py").write_text(
        "import asyncio, time\n"
        f"{kind} allow(subject, action, target):\n"
        "    if subject.sub == 'alice' and target.owner == 'hangs':\n"
        f"        {wait}\n"
        "    return True\n"
    )
    env = {
        "JOBCAST_AUTHORIZE": "rules:allow", "JOBCAST_AUTHORIZE_TIMEOUT": "5",
        "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    job_id = new_id()
    publish_lines(valkey.url, job_id, "bob", "1")
    with running(Server(tmp_path / "server.log", valkey.url, env)) as process:
        process.ready()
        async with (
            following(process.url, token("alice")) as alice,
            following(process.url, token("bob")) as bob,
        ):
            for follower in (alice, bob):
                assert (await follower.join(job_id))["ok"]
            expire_record(valkey, job_id)
            publish_lines(valkey.url, job_id, "hangs", "2")
            await eventually(lambda: "2" in lines(bob, job_id), "line for the other follower")
            [left] = await eventually(lambda: alice.transcript.of(job_id, "left"), "end")
            assert left["code"] == "unavailable"
            assert (await alice.join(job_id))["code"] == "unavailable"
            publish_lines(valkey.url, job_id, "hangs", "3")
            await eventually(lambda: "3" in lines(bob, job_id), "line after the refused join")
            assert lines(alice, job_id) == ["1"]
        for_follower = "did not answer in time for 1 of 2 followers"
        await eventually(lambda: for_follower in process.log, for_follower)
        for_join = "JOBCAST_AUTHORIZE did not answer within 5 s"
        await eventually(lambda: for_join in process.log, for_join)
        process.stop()
