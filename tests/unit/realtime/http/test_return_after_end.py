"""A client that comes back to a stream after the end of its job."""

from __future__ import annotations

import asyncio

import httpx
from starlette.applications import Starlette

from jobcast.events import Cursor, JobComplete, JobLog
from jobcast.realtime.http.interface import HttpInterface
from jobcast.realtime.hub import Hub
from jobcast.settings import Settings
from jobcast.tokens import issue
from jobcast.transports import Origin, Outgoing, Retention
from jobcast.transports.base import Snapshot
from jobcast.transports.memory import MemoryBroker, MemorySource
from tests.support import new_id
from tests.support.sse import EventReader


class LateSource(MemorySource):
    """A source that publishes a late line of a job during each read of its history."""

    late: Outgoing | None = None

    async def snapshot(self, job_id: str, after: Cursor | None = None) -> Snapshot:
        snapshot = await super().snapshot(job_id, after)
        if self.late is not None:
            await self.publish([self.late])
            self.late = None
            await asyncio.sleep(0)  # the line arrives before the client has joined
        return snapshot


async def test_line_that_arrives_while_a_client_comes_back_is_sent(
    job_id: str, secret: str
) -> None:
    settings = Settings(url="memory://", jwt_secret=secret)
    source = LateSource(MemoryBroker.at(f"memory://{new_id()}", Retention()))
    hub = Hub(source, settings)

    def start() -> None:
        hub.start()

    app = Starlette(routes=HttpInterface(hub, settings, start).routes())
    await source.publish([Outgoing.of(JobComplete(job_id=job_id, result=1), Origin(owner="alice"))])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://test",
        headers={"Authorization": f"Bearer {issue(settings, 'alice', ttl=600)}"},
    ) as client:
        path = f"/jobs/{job_id}/events"
        known = {"Last-Event-ID": read(await client.get(path)).last_id}
        source.late = Outgoing.of(JobLog(job_id=job_id, level="info", message="late"))
        again = await client.get(path, headers=known)
        assert read(again).names == ["joined", "job_log"]
        known = {"Last-Event-ID": read(again).last_id}
        assert (await client.get(path, headers=known)).status_code == 204
    await hub.aclose()


def read(response: httpx.Response) -> EventReader:
    reader = EventReader()
    reader.feed(response.text)
    return reader
