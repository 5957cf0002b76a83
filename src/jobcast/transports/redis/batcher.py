"""Reads of many jobs' histories: together, in few round trips, by one connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio.cluster import RedisCluster

from jobcast.aio import cancel_and_wait
from jobcast.transports.redis.servers import AsyncClient

AT_ONCE: Final = 50  # histories a round trip, all of which are in memory together


class ScriptBatcher:
    """Runs scripts, gathering what is asked while others are being answered.

    When a server has been away, all its clients come back in the same moment. With a call for each
    of them redis-py would open as many connections.

    Args:
        client: of one server or of a cluster.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._asked: deque[tuple[Sequence[Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def eval(self, *arguments: Any) -> Any:
        """What a script answers. Takes the arguments of ``EVAL``.

        Raises:
            RedisError, OSError, RuntimeError: as redis-py's client does.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((arguments, answer))
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        return await answer

    async def aclose(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def _run(self) -> None:
        some: list[tuple[Sequence[Any], asyncio.Future[Any]]] = []
        try:
            while self._asked:
                some = [self._asked.popleft() for _ in range(min(AT_ONCE, len(self._asked)))]
                try:
                    answers = await self._ask([arguments for arguments, _ in some])
                except Exception as exc:
                    # All who wait would hear the same, one timeout after the other.
                    some += self._asked
                    self._asked.clear()
                    answers = [exc] * len(some)
                for (_, answer), given in zip(some, answers, strict=True):
                    if answer.done():
                        continue  # whoever asked has gone
                    if isinstance(given, BaseException):
                        answer.set_exception(given)
                    else:
                        answer.set_result(given)
        finally:
            self._task = None
            for _, answer in [*some, *self._asked]:
                answer.cancel()

    async def _ask(self, calls: Sequence[Sequence[Any]]) -> Sequence[Any]:
        if isinstance(self._client, RedisCluster):
            # Its pipelines run no scripts.
            commands = [self._client.execute_command("EVAL", *call) for call in calls]
            return await asyncio.gather(*commands, return_exceptions=True)
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command("EVAL", *call)
        answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
        return answers
