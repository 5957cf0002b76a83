"""The replies of a Redis server are the same, read in bulk or one by one."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from jobcast.transports.redis import bulk_reader
from jobcast.transports.redis.bulk_reader import (
    READ_SIZE,
    BulkReplyReader,
    ReplyReader,
    SingleReplyReader,
    reply_reader,
)
from jobcast.transports.redis.servers import Servers
from tests.conftest import Valkey
from tests.support import TIMEOUT, new_id

MESSAGES = 2000
LARGE = 1024 * 1024  # several reads

Connection = redis.asyncio.Connection
Reader = Callable[[Connection], ReplyReader]


def bulk(connection: Connection) -> ReplyReader:
    assert connection._reader is not None
    return BulkReplyReader(connection._reader)


BOTH = pytest.mark.parametrize("reader", [bulk, SingleReplyReader])


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Open a connection like those for subscriptions."""
    servers = Servers.at(url)
    client = servers.async_client()
    [pool] = await servers.subscriber_pools(client)
    connection = pool.make_connection()
    try:
        await connection.connect()
        yield connection
    finally:
        await connection.disconnect(nowait=True)
        await pool.aclose()
        await client.aclose()


async def read(replies: ReplyReader, count: int) -> list[Any]:
    received: list[Any] = []
    async with asyncio.timeout(TIMEOUT):
        while len(received) < count:
            batch = await replies.read()
            assert batch, "the read returned no reply"
            received += batch
    return received


async def send(connection: Connection, *words: str | bytes) -> None:
    await connection.send_packed_command(connection.pack_command(*words), check_health=False)


def make_messages(channel: str) -> list[bytes]:
    """Return messages of random bytes, most of them small, some large, one empty."""
    messages = [b"%d %s" % (n, secrets.token_bytes(n % 300)) for n in range(MESSAGES)]
    messages[MESSAGES // 2] = secrets.token_bytes(LARGE)
    messages[MESSAGES // 3] = b""
    # A line end at the boundary of a read.
    messages[MESSAGES // 4] = b"\r\n" * READ_SIZE
    return messages


async def test_both_readers_return_the_same_replies(valkey: Valkey) -> None:
    channel = new_id("channel")
    messages = make_messages(channel)
    results: list[list[Any]] = []
    async with connected(valkey.url) as one, connected(valkey.url) as other:
        readers = [bulk(one), SingleReplyReader(other)]
        for connection in (one, other):
            await send(connection, "SUBSCRIBE", channel)
        for replies in readers:
            assert await read(replies, 1) == [[b"subscribe", channel.encode(), 1]]
        reading = [asyncio.create_task(read(replies, MESSAGES)) for replies in readers]
        async with redis.asyncio.Redis.from_url(valkey.url) as publisher:
            pipeline = publisher.pipeline(transaction=False)
            for message in messages:
                pipeline.publish(channel, message)
            assert await pipeline.execute() == [2] * MESSAGES
        results = await asyncio.gather(*reading)
        assert results[0] == results[1]
        assert results[0] == [[b"message", channel.encode(), message] for message in messages]

        # Replies to commands arrive between messages, in the same form.
        for connection in (one, other):
            await send(connection, "PING")
            await send(connection, "UNSUBSCRIBE", channel)
        endings = [await read(replies, 2) for replies in readers]
        assert endings[0] == endings[1] == [[b"pong", b""], [b"unsubscribe", channel.encode(), 0]]


async def test_bulk_reader_returns_all_buffered_replies_at_once(valkey: Valkey) -> None:
    channel, count = new_id("channel"), 100
    async with connected(valkey.url) as connection:
        replies = bulk(connection)
        await send(connection, "SUBSCRIBE", channel)
        await read(replies, 1)
        # The server writes the messages of one command at once.
        script = "for n = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], n) end"
        async with redis.asyncio.Redis.from_url(valkey.url) as publisher:
            await publisher.eval(script, 1, channel, count)
        reads = 0
        received: list[Any] = []
        while len(received) < count:
            received += await replies.read()
            reads += 1
        assert [reply[2] for reply in received] == [b"%d" % n for n in range(1, count + 1)]
        assert reads < count / 10


@BOTH
async def test_connection_closed_by_the_server_raises(valkey: Valkey, reader: Reader) -> None:
    async with connected(valkey.url) as connection:
        replies = reader(connection)
        await send(connection, "CLIENT", "ID")
        [number] = await read(replies, 1)
        await send(connection, "SUBSCRIBE", new_id("channel"))
        await read(replies, 1)
        async with redis.asyncio.Redis.from_url(valkey.url) as other:
            reading = asyncio.create_task(replies.read())
            assert await other.client_kill_filter(_id=str(number)) == 1
            with pytest.raises(RedisConnectionError):
                async with asyncio.timeout(TIMEOUT):
                    await reading


@BOTH
async def test_error_reply_is_raised(valkey: Valkey, reader: Reader) -> None:
    async with connected(valkey.url) as connection:
        replies = reader(connection)
        await send(connection, "SUBSCRIBE")
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            await read(replies, 1)


@BOTH
async def test_missing_permission_raises_a_redis_error(valkey: Valkey, reader: Reader) -> None:
    user = new_id("user")
    async with redis.asyncio.Redis.from_url(valkey.url) as other:
        # The user may connect, and nothing else.
        await other.acl_setuser(user, enabled=True, nopass=True, commands=["+client", "+select"])
        async with connected(valkey.url.replace("//", f"//{user}:x@")) as connection:
            await send(connection, "SUBSCRIBE", new_id("channel"))
            with pytest.raises(RedisError, match="no permissions"):
                await read(reader(connection), 1)
        await other.acl_deluser(user)


async def read_from_server(reader: Reader, *pieces: bytes) -> tuple[list[Any], Exception]:
    """Read from a server that sends pieces of bytes and closes. Returns replies and error."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # keeps the pieces from arriving as one
        writer.close()
        await writer.wait_closed()
        gone.set()

    async def set_up(connection: Connection) -> None:
        # Sends no handshake, which this server would not answer.
        connection._parser.on_connect(connection)

    received: list[Any] = []
    gone = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    connection = Connection(
        host="127.0.0.1", port=port, protocol=2, redis_connect_func=set_up
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.connect()
            replies = reader(connection)
            while True:
                received += await replies.read()
    except RedisError as exc:
        return received, exc
    finally:
        await connection.disconnect(nowait=True)
        await gone.wait()
        server.close()
        await server.wait_closed()


MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"


@BOTH
async def test_fragmented_reply_is_read_as_one_reply(reader: Reader) -> None:
    pieces = [MESSAGE[n : n + 1] for n in range(len(MESSAGE))]
    received, end = await read_from_server(reader, *pieces)
    assert received == [[b"message", b"c", b"hello"]]
    assert isinstance(end, RedisConnectionError)


@BOTH
async def test_incomplete_reply_is_not_returned(reader: Reader) -> None:
    received, end = await read_from_server(reader, MESSAGE + MESSAGE[:-3])
    assert received == [[b"message", b"c", b"hello"]]
    assert isinstance(end, RedisConnectionError)


@BOTH
async def test_replies_before_an_error_in_the_same_read_are_returned(
    reader: Reader,
) -> None:
    received, end = await read_from_server(reader, MESSAGE * 3 + b"-ERR of some kind\r\n")
    assert received == [[b"message", b"c", b"hello"]] * 3
    assert isinstance(end, ResponseError)


@BOTH
async def test_invalid_reply_raises_a_redis_error(reader: Reader) -> None:
    received, end = await read_from_server(reader, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert received == []
    assert isinstance(end, RedisError)


async def test_replies_are_read_in_bulk_by_default(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        assert isinstance(reply_reader(connection), BulkReplyReader)


async def test_replies_are_read_one_by_one_without_hiredis(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_reader, "HIREDIS_AVAILABLE", False)
    channel = new_id("channel")
    async with connected(valkey.url) as connection:
        replies = reply_reader(connection)
        assert isinstance(replies, SingleReplyReader)
        await send(connection, "SUBSCRIBE", channel)
        assert await read(replies, 1) == [[b"subscribe", channel.encode(), 1]]


async def test_replies_are_read_one_by_one_without_access_to_the_stream(
    valkey: Valkey,
) -> None:
    async with connected(valkey.url) as connection:
        # A disconnected connection has no stream, as a future redis-py might hide it.
        await connection.disconnect()
        assert isinstance(reply_reader(connection), SingleReplyReader)
