"""Batches script calls of concurrent readers into few round trips on one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster

from jobcast.aio import cancel_and_wait
from jobcast.transports.redis.servers import AsyncClient

AT_ONCE: Final = 50  # scripts per round trip, whose answers are in memory together


class ScriptBatcher:
    """Runs scripts, and batches the calls that arrive while a round trip is under way.

    After an outage, all clients of a server reconnect at the same moment. If each of them called
    redis-py directly, it would open as many connections.

    Args:
        client: a client of one server or of a cluster.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._calls: deque[tuple[Sequence[Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def eval(self, *arguments: Any) -> Any:
        """Run a script and return its answer. The arguments are those of ``EVAL``.

        Raises:
            RedisError, OSError, RuntimeError: as raised by redis-py's client.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.append((arguments, future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._run_batches())
        return await future

    async def aclose(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run_batches(self) -> None:
        batch: list[tuple[Sequence[Any], asyncio.Future[Any]]] = []
        try:
            while self._calls:
                batch = [self._calls.popleft() for _ in range(min(AT_ONCE, len(self._calls)))]
                try:
                    answers = await self._run_scripts([arguments for arguments, _ in batch])
                except Exception as exc:
                    # Each waiting call would fail the same way, one timeout after the other.
                    batch += self._calls
                    self._calls.clear()
                    answers = [exc] * len(batch)
                for (_, future), result in zip(batch, answers, strict=True):
                    if future.done():
                        continue  # the caller was cancelled
                    if isinstance(result, BaseException):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._task = None
            for _, future in [*batch, *self._calls]:
                future.cancel()

    async def _run_scripts(self, calls: Sequence[Sequence[Any]]) -> Sequence[Any]:
        if isinstance(self._client, RedisCluster):
            # A cluster's pipelines run no scripts.
            commands = [self._client.execute_command("EVAL", *call) for call in calls]
            return await asyncio.gather(*commands, return_exceptions=True)
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command("EVAL", *call)
        answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return answers
