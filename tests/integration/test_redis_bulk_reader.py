"""What a Redis server says is the same whether it is read in bulk or answer by answer."""

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
    """A connection as those for subscriptions are."""
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


async def read(answers: ReplyReader, count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(TIMEOUT):
        while len(found) < count:
            some = await answers.read()
            assert some, "it returned without an answer"
            found += some
    return found


async def send(connection: Connection, *words: str | bytes) -> None:
    await connection.send_packed_command(connection.pack_command(*words), check_health=False)


def conversation(channel: str) -> list[bytes]:
    """What is published: small ones, and large ones among them, of any bytes."""
    messages = [b"%d %s" % (n, secrets.token_bytes(n % 300)) for n in range(MESSAGES)]
    messages[MESSAGES // 2] = secrets.token_bytes(LARGE)
    messages[MESSAGES // 3] = b""
    # An end of a line where one piece of an answer ends.
    messages[MESSAGES // 4] = b"\r\n" * READ_SIZE
    return messages


async def test_both_read_the_same_of_the_same_stream(valkey: Valkey) -> None:
    channel = new_id("channel")
    messages = conversation(channel)
    heard: list[list[Any]] = []
    async with connected(valkey.url) as one, connected(valkey.url) as other:
        readers = [bulk(one), SingleReplyReader(other)]
        for connection in (one, other):
            await send(connection, "SUBSCRIBE", channel)
        for answers in readers:
            assert await read(answers, 1) == [[b"subscribe", channel.encode(), 1]]
        reading = [asyncio.create_task(read(answers, MESSAGES)) for answers in readers]
        async with redis.asyncio.Redis.from_url(valkey.url) as publisher:
            pipeline = publisher.pipeline(transaction=False)
            for message in messages:
                pipeline.publish(channel, message)
            assert await pipeline.execute() == [2] * MESSAGES
        heard = await asyncio.gather(*reading)
        assert heard[0] == heard[1]
        assert heard[0] == [[b"message", channel.encode(), message] for message in messages]

        # Answers to commands come in between, in the same shape.
        for connection in (one, other):
            await send(connection, "PING")
            await send(connection, "UNSUBSCRIBE", channel)
        endings = [await read(answers, 2) for answers in readers]
        assert endings[0] == endings[1] == [[b"pong", b""], [b"unsubscribe", channel.encode(), 0]]


async def test_what_is_there_comes_at_once_in_bulk(valkey: Valkey) -> None:
    channel, count = new_id("channel"), 100
    async with connected(valkey.url) as connection:
        answers = bulk(connection)
        await send(connection, "SUBSCRIBE", channel)
        await read(answers, 1)
        # One command: the server writes what it says of it in one go.
        script = "for n = 1, ARGV[1] do redis.call('PUBLISH', KEYS[1], n) end"
        async with redis.asyncio.Redis.from_url(valkey.url) as publisher:
            await publisher.eval(script, 1, channel, count)
        reads = 0
        found: list[Any] = []
        while len(found) < count:
            found += await answers.read()
            reads += 1
        assert [answer[2] for answer in found] == [b"%d" % n for n in range(1, count + 1)]
        assert reads < count / 10


@BOTH
async def test_a_connection_that_the_server_closes_has_ended(
    valkey: Valkey, reader: Reader
) -> None:
    async with connected(valkey.url) as connection:
        answers = reader(connection)
        await send(connection, "CLIENT", "ID")
        [number] = await read(answers, 1)
        await send(connection, "SUBSCRIBE", new_id("channel"))
        await read(answers, 1)
        async with redis.asyncio.Redis.from_url(valkey.url) as other:
            reading = asyncio.create_task(answers.read())
            assert await other.client_kill_filter(_id=str(number)) == 1
            with pytest.raises(RedisConnectionError):
                async with asyncio.timeout(TIMEOUT):
                    await reading


@BOTH
async def test_an_error_reply_is_raised(valkey: Valkey, reader: Reader) -> None:
    async with connected(valkey.url) as connection:
        answers = reader(connection)
        await send(connection, "SUBSCRIBE")
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            await read(answers, 1)


@BOTH
async def test_what_the_server_does_not_allow_is_an_error_of_redis(
    valkey: Valkey, reader: Reader
) -> None:
    user = new_id("user")
    async with redis.asyncio.Redis.from_url(valkey.url) as other:
        # It may say hello and nothing more.
        await other.acl_setuser(user, enabled=True, nopass=True, commands=["+client", "+select"])
        async with connected(valkey.url.replace("//", f"//{user}:x@")) as connection:
            await send(connection, "SUBSCRIBE", new_id("channel"))
            with pytest.raises(RedisError, match="no permissions"):
                await read(reader(connection), 1)
        await other.acl_deluser(user)


async def served(reader: Reader, *pieces: bytes) -> tuple[list[Any], Exception]:
    """What is read of a server that says just this, piece by piece, and goes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)  # so that the pieces are no single one on the other side
        writer.close()
        await writer.wait_closed()
        gone.set()

    async def set_up(connection: Connection) -> None:
        connection._parser.on_connect(connection)  # and ask for nothing: nobody would answer

    found: list[Any] = []
    gone = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    connection = Connection(
        host="127.0.0.1", port=port, protocol=2, redis_connect_func=set_up
    )  # fmt: skip
    try:
        async with asyncio.timeout(TIMEOUT):
            await connection.connect()
            answers = reader(connection)
            while True:
                found += await answers.read()
    except RedisError as exc:
        return found, exc
    finally:
        await connection.disconnect(nowait=True)
        await gone.wait()
        server.close()
        await server.wait_closed()


MESSAGE = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n"


@BOTH
async def test_an_answer_in_pieces_is_one_answer(reader: Reader) -> None:
    pieces = [MESSAGE[n : n + 1] for n in range(len(MESSAGE))]
    found, end = await served(reader, *pieces)
    assert found == [[b"message", b"c", b"hello"]]
    assert isinstance(end, RedisConnectionError)


@BOTH
async def test_half_an_answer_is_none(reader: Reader) -> None:
    found, end = await served(reader, MESSAGE + MESSAGE[:-3])
    assert found == [[b"message", b"c", b"hello"]]
    assert isinstance(end, RedisConnectionError)


@BOTH
async def test_what_came_before_an_error_is_read_although_they_came_together(
    reader: Reader,
) -> None:
    found, end = await served(reader, MESSAGE * 3 + b"-ERR of some kind\r\n")
    assert found == [[b"message", b"c", b"hello"]] * 3
    assert isinstance(end, ResponseError)


@BOTH
async def test_what_is_no_answer_is_an_error_of_redis(reader: Reader) -> None:
    found, end = await served(reader, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert found == []
    assert isinstance(end, RedisError)


async def test_answers_are_read_in_bulk_where_that_can_be(valkey: Valkey) -> None:
    async with connected(valkey.url) as connection:
        assert isinstance(reply_reader(connection), BulkReplyReader)


async def test_without_hiredis_answers_are_read_one_by_one(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_reader, "HIREDIS_AVAILABLE", False)
    channel = new_id("channel")
    async with connected(valkey.url) as connection:
        answers = reply_reader(connection)
        assert isinstance(answers, SingleReplyReader)
        await send(connection, "SUBSCRIBE", channel)
        assert await read(answers, 1) == [[b"subscribe", channel.encode(), 1]]


async def test_a_connection_whose_stream_is_not_to_be_seen_is_read_one_by_one(
    valkey: Valkey,
) -> None:
    async with connected(valkey.url) as connection:
        # As it is before it is connected, and would be after a change in redis-py.
        await connection.disconnect()
        assert isinstance(reply_reader(connection), SingleReplyReader)
