"""A stock python-socketio server behind RabbitMQ, without any code of jobcast."""

from __future__ import annotations

import os

import socketio

manager = socketio.AsyncAioPikaManager(os.environ["STOCK_URL"], channel=os.environ["STOCK_CHANNEL"])
sio = socketio.AsyncServer(async_mode="asgi", client_manager=manager)


@sio.on("follow")
async def follow(sid: str, job_id: str) -> bool:
    await sio.enter_room(sid, f"job_{job_id}")
    return True


app = socketio.ASGIApp(sio)
