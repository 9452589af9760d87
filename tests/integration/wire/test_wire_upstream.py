"""Requests to an engine: kept connections, the one retry, and engines that answer nonsense."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from bioproxy import aio
from bioproxy.clocks import since_boot
from bioproxy.errors import EngineProtocolError, EngineUnavailable
from bioproxy.wire.engine_connection import Response
from bioproxy.wire.upstream import Pool, parse_origin
from support.http import free_port
from support.leaks import until
from support.wire_rig import MS, Engine, Wire, chunk, engine, ok

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def polite(wire: Wire) -> None:
    """Answer every request with what it was."""
    while True:
        head, body = await wire.request()
        await wire.send(ok(b"" if head.startswith(b"HEAD") else head + body, b"X: y"))


async def ask(pool: Pool, body: bytes = b"") -> Response:
    """One plain request."""
    return await pool.request("POST" if body else "GET", b"/a", [(b"A", b"b")], body)


async def test_connection_is_used_again() -> None:
    """One connection serves requests one after another, and each answer is whole."""
    async with engine(polite) as (played, pool):
        for number in range(3):
            response = await ask(pool, b"body %d" % number)
            assert (response.status, response.reason, response.fields.get(b"x")) == (200, b"OK", b"y")
            assert pool.statistics().reused == number
            assert (await response.read()).endswith(b"A: b\r\nContent-Length: 6\r\n\r\nbody %d" % number)
        statistics = pool.statistics()
        assert (played.connections, statistics.idle, statistics.active, statistics.reused) == (1, 1, 0, 2)


async def test_requests_at_once_get_connections_of_their_own() -> None:
    """A connection is one request's until its answer is whole."""
    async with engine(polite) as (played, pool):
        responses = await asyncio.gather(*(ask(pool, b"%d" % number) for number in range(5)))
        bodies = [await response.read() for response in responses]
        assert [body[-1:] for body in bodies] == [b"%d" % number for number in range(5)]
        assert (played.connections, pool.statistics().idle) == (5, 5)


async def test_answer_to_head_has_no_body() -> None:
    """The length of an answer to HEAD is told, nothing follows, and the connection goes on."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        await wire.head()
        await wire.send(ok(b"hi"))

    async with engine(script) as (played, pool):
        response = await pool.request("HEAD", b"/", [], b"")
        assert (response.length, await response.read()) == (7, b"")
        assert await (await ask(pool)).read() == b"hi"
        assert played.connections == 1


async def test_interim_answers_are_skipped() -> None:
    """1xx answers are not the answer, and their headers are not its headers."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n", b"HTTP/1.1 103 Hints\r\n\r\n" + ok(b"hi"))

    async with engine(script) as (_, pool):
        response = await ask(pool)
        assert (response.status, response.reason, len(response.headers)) == (200, b"OK", 1)
        assert await response.read() == b"hi"


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunk(b"ab")
            + chunk(b"c")
            + b"0\r\nT: x\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("step", [1, 1000])
async def test_framings(answer: bytes, body: bytes, step: int) -> None:
    """An answer ends by its length, its last chunk, its status or its connection, in pieces or at once."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(*(answer[index : index + step] for index in range(0, len(answer), step)))

    async with engine(script) as (_, pool):
        assert await (await ask(pool)).read() == body


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\x00" * 100,
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_broken_answers(answer: bytes) -> None:
    """An answer that is no HTTP or ends too early is an error that says so, and its connection is gone."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)

    async with engine(script) as (_, pool):
        with pytest.raises(EngineProtocolError, match="engine"):
            await (await ask(pool)).read()
        await until(lambda: not pool.statistics().open)


LENGTH, CHUNKS = b"Content-Length: 5\r\n", b"Transfer-Encoding: Chunked\r\n"


@pytest.mark.parametrize("both", [LENGTH + CHUNKS, CHUNKS + LENGTH, CHUNKS.lower() + b"content-length: 0\r\n"])
async def test_an_answer_with_both_lengths(both: bytes) -> None:
    """The chunks count, the length is not handed on, and the connection is not used again."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nA: b\r\n" + both + b"\r\n" + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n")
        await wire.gone()

    async with engine(script) as (played, pool):
        for _ in range(2):
            response = await ask(pool)
            assert await response.read() == b"abc"
            assert (response.length, [name.lower() for name, _ in response.headers]) == (
                None,
                [b"a", b"transfer-encoding"],
            )
        assert played.connections == 2


async def test_bytes_behind_an_answer_spoil_the_connection() -> None:
    """The answer counts, what follows it does not, and the connection is not used again."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi") + b"HTTP/1.1 500 Evil\r\n\r\n")
        await wire.gone()

    async with engine(script) as (played, pool):
        assert await (await ask(pool)).read() == b"hi"
        assert await (await ask(pool)).read() == b"hi"
        assert played.connections == 2


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    """What an engine says between two requests belongs to neither."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi"))
        await until(lambda: pool.statistics().idle)
        await wire.send(ok(b"evil"))
        await wire.gone()

    async with engine(script) as (_, pool):
        assert await (await ask(pool)).read() == b"hi"
        await until(lambda: not pool.statistics().open)


async def test_connection_close_is_obeyed() -> None:
    """An engine that announces its close is not asked again on that connection."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi", b"Connection: close"))
        await wire.gone()

    async with engine(script) as (played, pool):
        for _ in range(3):
            assert await (await ask(pool)).read() == b"hi"
        assert (played.connections, pool.statistics().retried) == (3, 0)


async def test_reused_connection_that_fails_is_retried_once() -> None:
    """An engine may close a kept connection in the moment of its use: the request goes out again, on a fresh one."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(ok(b"hi"))
        if played.connections == 1:
            await wire.request()
            wire.reset()
            return
        await wire.request()
        await wire.send(ok(b"again"))

    async with engine(script) as (played, pool):
        assert await (await ask(pool, b"x")).read() == b"hi"
        assert await (await ask(pool, b"x")).read() == b"hi"
        assert played.connections == 2
        assert await (await ask(pool, b"x")).read() == b"again"
        assert pool.statistics().retried == 1


async def test_reused_connection_with_half_a_head_is_an_error() -> None:
    """Once a byte of an answer has come, the request was received, and is not sent again."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi"))
        await wire.head()
        await wire.send(b"HTTP/1.1 20")

    async with engine(script) as (played, pool):
        assert await (await ask(pool)).read() == b"hi"
        with pytest.raises(EngineProtocolError, match="in the head of its answer"):
            await ask(pool)
        assert (played.connections, pool.statistics().retried) == (1, 0)


async def test_fresh_connection_that_fails_is_unavailable() -> None:
    """An engine that takes the connection and hangs up does not serve."""

    async def script(wire: Wire) -> None:
        await wire.head()

    async with engine(script) as (played, pool):
        with pytest.raises(EngineUnavailable, match=r"before it answered \(http://127.0.0.1:") as caught:
            await ask(pool)
        assert (played.connections, caught.value.sent) == (1, True)


async def test_nobody_there_is_unavailable() -> None:
    """Where nothing listens the error says what was tried."""
    port = free_port()
    pool = Pool(parse_origin(f"http://127.0.0.1:{port}"))
    with pytest.raises(EngineUnavailable, match=f"nothing answers at http://127.0.0.1:{port} .*refused") as caught:
        await ask(pool)
    assert not caught.value.sent


async def test_an_end_that_the_loop_has_not_told_yet() -> None:
    """A kept connection that the engine has just closed is not used, so it is sure that nothing was sent over it."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(ok(b"hi"))
        await wire.gone()

    async with engine(script) as (played, pool):
        assert await (await ask(pool, b"x")).read() == b"hi"
        [connection] = pool.idle
        theirs = played.wires[0].writer.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(theirs.fileno())) as same:
            same.shutdown(socket.SHUT_WR)  # the end is here, and the loop has not looked
        assert not connection.is_quiet()
        assert await (await ask(pool, b"x")).read() == b"hi"
        assert (played.connections, pool.statistics().retried) == (2, 0)


async def test_an_engine_that_is_gone_after_it_had_the_request() -> None:
    """The kept connection broke, and no other can be had: the error says that the request may have been received."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(ok(b"hi"))
        await wire.request()
        wire.reset()

    listener = await asyncio.start_server(Engine(script).connected, "127.0.0.1", 0)
    pool = Pool(parse_origin(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"))
    assert await (await ask(pool, b"x")).read() == b"hi"
    listener.close()
    with pytest.raises(EngineUnavailable, match="refused") as caught:
        await ask(pool, b"x")
    assert caught.value.sent
    await pool.close()


async def test_no_connection_in_time_is_unavailable() -> None:
    """An address that swallows packets ends in the connect time-out."""
    pool = Pool(parse_origin("http://192.0.2.1:9"))
    pool.connect_timeout = 30 * MS
    with pytest.raises(EngineUnavailable, match="nothing answers at http://192"):
        await ask(pool)


async def test_idle_connections_expire() -> None:
    """A connection is given up before the engine would close it."""
    async with engine(polite) as (_, pool):
        pool.idle_timeout = 30 * MS
        await (await ask(pool)).read()
        assert pool.statistics().idle == 1
        await until(lambda: not pool.statistics().open)


async def test_a_connection_that_lay_idle_while_the_machine_slept() -> None:
    """It is not used again, though its time-out did not pass: the other end was awake."""
    async with engine(polite) as (played, pool):
        await (await ask(pool)).read()
        pool.clock = lambda: since_boot() + 3600
        await (await ask(pool)).read()
        assert (played.connections, pool.statistics().reused) == (2, 0)


async def test_idle_connections_can_be_dropped() -> None:
    """After a sleep of the machine, or a change of the engine, kept connections are not trusted."""
    async with engine(polite) as (played, pool):
        await (await ask(pool)).read()
        pool.drop_idle()
        await (await ask(pool)).read()
        assert played.connections == 2


@pytest.mark.parametrize("ours", [True, False])
async def test_idle_connection_that_the_engine_closes_is_told(ours: bool) -> None:
    """The engine's end shows there before anyone asks; connections that we close ourselves tell nothing."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi"))
        await asked.wait()

    asked = asyncio.Event()
    async with engine(script) as (_, pool):
        told: list[bool] = []
        pool.on_lost = lambda: told.append(True)
        await (await ask(pool)).read()
        if ours:
            pool.drop_idle()
        asked.set()
        await until(lambda: pool.statistics().open == 0)
        assert told == ([] if ours else [True])


async def test_closed_pool_serves_nothing() -> None:
    """`close` ends requests under way, and later ones get a sentence."""
    asked = asyncio.Event()

    async def silent(wire: Wire) -> None:
        await wire.head()
        asked.set()
        await wire.gone()

    async with engine(silent) as (_, pool):
        waiting = aio.spawn(ask(pool), name="test")
        await asked.wait()
        await pool.close()
        with pytest.raises(EngineUnavailable):
            await waiting
        with pytest.raises(EngineUnavailable, match="being closed"):
            await ask(pool)


async def test_answer_longer_than_the_reader_wants() -> None:
    """`read` takes so many bytes and no more."""
    async with engine(polite) as (_, pool):
        response = await ask(pool, b"x" * 100)
        with pytest.raises(EngineProtocolError, match="longer than 50 bytes"):
            await response.read(limit=50)


async def test_unread_answer_holds_the_engine_back() -> None:
    """An answer that nobody reads yet does not fill our memory; read late, it is whole all the same."""
    size = 8 << 20
    behind = asyncio.Event()

    async def floods(wire: Wire) -> None:
        await wire.head()
        wire.writer.write(ok(b"x" * size))
        await until(lambda: response is not None and sum(map(len, response.pieces)) > 256 << 10)
        behind.set()
        await wire.gone()

    response: Response | None = None
    async with engine(floods) as (_, pool):
        response = await ask(pool)
        await behind.wait()
        assert sum(map(len, response.pieces)) < size / 4
        assert len(await response.read()) == size


async def test_early_answer_to_a_long_body() -> None:
    """An engine may answer before it has read everything: the answer counts, the connection does not."""

    async def hasty(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"too long"))
        await wire.gone()

    async with engine(hasty) as (_, pool):
        response = await ask(pool, b"x" * 20_000_000)
        assert await response.read() == b"too long"
        await until(lambda: not pool.statistics().open)


async def test_base_path_stands_before_every_target() -> None:
    """An engine below a path is asked below that path."""
    async with engine(polite) as (_, pool):
        pool.base = b"/base"
        assert (await (await ask(pool)).read()).startswith(b"GET /base/a HTTP/1.1\r\n")
