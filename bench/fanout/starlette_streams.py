"""Bare event streams: Starlette's StreamingResponse, with a queue per client and Redis pub/sub.

SECRET=... REDIS_URL=... uvicorn bench.fanout.starlette_streams:app
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import jwt
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

SECRET: Final = os.environ["SECRET"]
PATTERN: Final = "job_*"

queues: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)


async def receive(redis: Redis) -> None:
    """Put each published event into the queues of the job's clients."""
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe(PATTERN)
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                lines = b"event: job_log\ndata: " + message["data"] + b"\n\n"
                for queue in queues[message["channel"].decode()]:
                    queue.put_nowait(lines)


async def stream(channel: str) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues[channel].add(queue)
    try:
        yield b":\n\n"
        while True:
            yield await queue.get()
    finally:
        queues[channel].discard(queue)


async def events(request: Request) -> Response:
    token = request.headers["authorization"].removeprefix("Bearer ")
    try:
        jwt.decode(token, SECRET, algorithms=["HS256"], audience="jobcast")
    except jwt.PyJWTError:
        return PlainTextResponse("token_invalid", 401)
    channel = f"job_{request.path_params['job_id']}"
    return StreamingResponse(stream(channel), media_type="text/event-stream")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with Redis.from_url(os.environ["REDIS_URL"]) as redis:
        receiving = asyncio.create_task(receive(redis))
        yield
        receiving.cancel()


app = Starlette(routes=[Route("/jobs/{job_id}/events", events)], lifespan=lifespan)
