"""A realtime process subscribes to a job only while one of its clients follows it."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import Valkey
from tests.support import Server, eventually, following, new_id

Token = Callable[..., str]


async def test_channel_is_subscribed_while_its_job_is_followed(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    channel = f"jobcast:{{{job_id}}}:live"

    def subscribers() -> int:
        counts = valkey.command("PUBSUB", "NUMSUB", channel)
        return int(counts[1])

    async with following(server.url, token(jobs=[job_id])) as one:
        assert subscribers() == 0
        await one.join(job_id)
        assert subscribers() == 1
        async with following(server.url, token(jobs=[job_id])) as two:
            await two.join(job_id)
            assert subscribers() == 1
            await one.leave(job_id)
            assert (await two.join(job_id))["ok"]
            assert subscribers() == 1
        await eventually(lambda: subscribers() == 0, "end of the subscription")
        for _ in range(5):
            await one.join(job_id)
            await one.leave(job_id)
        await one.join(job_id)
        assert subscribers() == 1
        # The WebSocket closes without a Socket.IO disconnect.
        await one.client.eio.ws.close(code=1011)
    await eventually(lambda: subscribers() == 0, "end of the subscription")


async def test_refused_join_leaves_no_subscription(
    server: Server, valkey: Valkey, token: Token
) -> None:
    job_id = new_id()
    async with following(server.url, token("eve")) as eve:
        assert not (await eve.join(job_id))["ok"]
        channels = valkey.command("PUBSUB", "CHANNELS", f"*{job_id}*")
        assert channels == []
