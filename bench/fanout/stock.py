"""The stock stack: python-socketio with its Redis manager under uvicorn.

SECRET=... REDIS_URL=... uvicorn bench.fanout.stock:app
"""

from __future__ import annotations

import os
from typing import Any

import jwt
import socketio

SECRET = os.environ["SECRET"]

sio = socketio.AsyncServer(
    async_mode="asgi",
    client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"]),
    transports=["websocket"],
)


@sio.event
async def connect(sid: str, _: dict[str, Any], auth: dict[str, Any]) -> None:
    try:
        claims = jwt.decode(auth["token"], SECRET, algorithms=["HS256"], audience="jobcast")
    except jwt.PyJWTError:
        raise socketio.exceptions.ConnectionRefusedError("token_invalid") from None
    await sio.save_session(sid, claims)


@sio.event
async def join_job(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    await sio.enter_room(sid, f"job_{data['job_id']}")
    return {"ok": True}


app = socketio.ASGIApp(sio)
