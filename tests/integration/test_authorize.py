"""Rules about described jobs, over Socket.IO and HTTP, with a real store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobcast.events import JobEvent, JobInfoUpdate, JobStatus
from jobcast.transports import Origin, Outgoing, open_publisher
from tests.conftest import Valkey
from tests.support import Server, eventually, following, new_id
from tests.support.http_server import Token, code_of, line, serving
from tests.support.sse import http_client, read_until, streaming

# Subjects that may list the feed of a tag may follow the jobs with the tag, unless they are secret.
RULES = """
import json
from pathlib import Path

from jobcast.realtime import default_rule

LOG = Path(__file__).with_name("asked")
FIELDS = ("id", "owner", "tags", "task", "title", "parent")


def allow(subject, action, target):
    described = {name: getattr(target, name) for name in FIELDS}
    with LOG.open("a") as log:
        log.write(json.dumps([subject.sub, action, described]) + "\\n")
    if default_rule(subject, action, target):
        return True
    return target.title != "secret" and any(f"tag:{tag}" in subject.feeds for tag in target.tags)
"""


class Ruled(NamedTuple):
    """A server whose rule is written into a file."""

    server: Server
    folder: Path

    def asked(self) -> list[Any]:
        path = self.folder / "asked"
        return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def ruled(valkey: Valkey, folder: Path, definition: str = "def", **env: str) -> Iterator[Ruled]:
    (folder / "rules.py").write_text(RULES.replace("def allow", f"{definition} allow"))
    env = {"JOBCAST_AUTHORIZE": "rules:allow", "PYTHONPATH": str(folder), **env}
    with serving(valkey, folder, **env) as server:
        yield Ruled(server, folder)


def queued(job_id: str, **description: Any) -> JobStatus:
    return JobStatus(job_id=job_id, status="queued", **description)


def publish(valkey: Valkey, *events: JobEvent, owner: str | None = "bob") -> None:
    publisher = open_publisher(valkey.url)
    publisher.publish([Outgoing.of(event, Origin(owner)) for event in events])
    publisher.close()


def tokens(token: Token, project: str) -> str:
    return token("alice", feeds=[f"tag:project:{project}"])


@pytest.mark.parametrize("definition", ["def", "async def"])
async def test_rule_sees_the_description_of_a_job(
    valkey: Valkey, tmp_path: Path, token: Token, definition: str
) -> None:
    job_id = new_id()
    description = {"task": "shop.export", "title": "March", "parent": new_id("parent")}
    publish(valkey, queued(job_id, tags=("project:7", "nightly"), **description))
    expected = {
        "id": job_id, "owner": "bob", "tags": ["project:7", "nightly"], **description
    }  # fmt: skip
    with ruled(valkey, tmp_path, definition) as at:
        async with (
            following(at.server.url, tokens(token, "7")) as member,
            following(at.server.url, tokens(token, "8")) as stranger,
            http_client(at.server.url, tokens(token, "7")) as client,
            http_client(at.server.url, tokens(token, "8")) as other,
        ):
            assert (await member.join(job_id))["ok"]
            assert (await stranger.join(job_id))["code"] == "job_not_found"
            assert (await client.get(f"/jobs/{job_id}")).json()["title"] == "March"
            async with streaming(client, f"/jobs/{job_id}/events") as (reader, chunks):
                await read_until(reader, chunks, "job_status")
            for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events"):
                assert code_of(await other.get(path), 404) == "job_not_found"
        assert [call for call in at.asked() if call != ["alice", "follow", expected]] == []
        assert len(at.asked()) == 6


async def test_rule_decides_again_when_another_job_uses_the_id(
    own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    job_id = new_id("nightly")
    publish(own_valkey, queued(job_id, tags=("project:7",)))
    with ruled(own_valkey, tmp_path) as at:
        async with (
            following(at.server.url, tokens(token, "7")) as member,
            following(at.server.url, tokens(token, "8")) as other,
            following(at.server.url, token("bob")) as owner,
        ):
            for follower in (member, owner):
                assert (await follower.join(job_id))["ok"]
            # The record expires, and the same owner sends the job for another project.
            own_valkey.command("FLUSHALL")
            publish(own_valkey, queued(job_id, tags=("project:8",)), line(job_id, "of project 8"))
            await owner.transcript.wait_logged(job_id, 1)
            [left] = await eventually(lambda: member.transcript.of(job_id, "left"), "withdrawal")
            assert left["code"] == "job_not_found"
            assert (await member.join(job_id))["code"] == "job_not_found"
            assert (await other.join(job_id))["ok"]
            assert member.transcript.of(job_id, "job_log") == []


async def test_refreshed_token_is_checked_against_the_current_description(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    job_id, renamed = new_id(), new_id()
    for one in (job_id, renamed):
        publish(valkey, queued(one, tags=("project:7",)))
    with ruled(valkey, tmp_path) as at:
        async with following(at.server.url, tokens(token, "7")) as member:
            for one in (job_id, renamed):
                assert (await member.join(one))["ok"]
            publish(
                valkey,
                JobInfoUpdate(job_id=renamed, title="secret"),
                JobInfoUpdate(job_id=job_id, tags=("project:8",)),
            )
            # Project 8 was no tag of the job when the client joined.
            refreshed = await member.request("refresh_token", {"token": tokens(token, "8")})
            assert refreshed["ok"]
            [left] = await eventually(lambda: member.transcript.of(renamed, "left"), "withdrawal")
            assert left["code"] == "job_not_found"
            publish(valkey, line(job_id, "still followed"))
            await member.transcript.wait_logged(job_id, 1)
            assert member.transcript.of(job_id, "left") == []


async def test_regular_check_notices_another_title(
    valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    job_id, other = new_id(), new_id()
    for one in (job_id, other):
        publish(valkey, queued(one, tags=("project:7",)))
    with ruled(valkey, tmp_path, JOBCAST_REAUTHORIZE="0.3") as at:
        async with (
            following(at.server.url, tokens(token, "7")) as member,
            http_client(at.server.url, tokens(token, "7")) as client,
            streaming(client, f"/jobs/{job_id}/events") as (reader, chunks),
        ):
            for one in (job_id, other):
                assert (await member.join(one))["ok"]
            await read_until(reader, chunks, "job_status")
            publish(valkey, JobInfoUpdate(job_id=job_id, title="secret"))
            await eventually(lambda: member.transcript.of(job_id, "left"), "withdrawal")
            async for _ in chunks:
                pass
            assert reader.names[-1] == "left"
            publish(valkey, line(other, "still followed"))
            await member.transcript.wait_logged(other, 1)


async def test_followers_of_an_expired_record_stay(
    own_valkey: Valkey, tmp_path: Path, token: Token
) -> None:
    job_id = new_id()
    publish(own_valkey, queued(job_id, tags=("project:7",)))
    with ruled(own_valkey, tmp_path, JOBCAST_REAUTHORIZE="0.3") as at:
        async with following(at.server.url, tokens(token, "7")) as member:
            assert (await member.join(job_id))["ok"]
            own_valkey.command("FLUSHALL")
            calls = len(at.asked())
            await eventually(lambda: len(at.asked()) > calls + 2, "further checks")
            assert member.transcript.of(job_id, "left") == []
        # The rule still gets the description that the record had.
        assert at.asked()[-1][2]["tags"] == ["project:7"]


async def test_tags_give_no_right_by_default(server: Server, valkey: Valkey, token: Token) -> None:
    job_id = new_id()
    publish(valkey, queued(job_id, tags=("alice", "project:7")))
    granting = token("alice", feeds=["*", "tag:project:7"], can=["follow", "list", "cancel"])
    async with (
        following(server.url, granting) as alice,
        http_client(server.url, granting) as client,
    ):
        assert (await alice.join(job_id))["code"] == "job_not_found"
        assert code_of(await client.get(f"/jobs/{job_id}"), 404) == "job_not_found"
