"""Answers on their way from engine to client: nothing lost, nothing added, nothing held back."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy.errors import EngineProtocolError
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.relay import Tail, relay
from support.leaks import until
from support.wire_rig import Wire, chunk, client, engine, get, ok, post, proxying, serving

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_headers_pass_unchanged() -> None:
    """Method, target, headers and body reach the engine, its answer the client, less what is hop-by-hop."""
    asked: list[tuple[bytes, bytes]] = []

    async def script(wire: Wire) -> None:
        asked.append(await wire.request())
        await wire.send(b"HTTP/1.1 418 Tea Time\r\nB: 1\r\nKeep-Alive: x\r\nConnection: c\r\na: 2\r\nC: 3\r\n")
        await wire.send(b"content-LENGTH: 2\r\nB: 4\r\n\r\nhi")

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(post(b"body", b"TE: x", b"x-B: 2", b"Connection: close, y", b"Y: 1", path=b"/a%20b?c=%2F"))
        assert await wire.rest() == (
            b"HTTP/1.1 418 Tea Time\r\nB: 1\r\na: 2\r\ncontent-LENGTH: 2\r\nB: 4\r\nConnection: close\r\n\r\nhi"
        )
        head, body = asked[0]
        assert head.startswith(b"POST /a%20b?c=%2F HTTP/1.1\r\nHost: 127.0.0.1:")
        assert head.endswith(b"\r\nx-B: 2\r\nContent-Length: 4\r\n\r\n")
        assert body == b"body"


async def test_events_pass_one_by_one() -> None:
    """Each event reaches the client before the engine makes the next one."""
    seen = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM)
        for number in range(10):
            seen.clear()
            await wire.send(chunk(b"data: %d\n\n" % number))
            await seen.wait()
        await wire.send(b"0\r\n\r\n")

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        assert b"text/event-stream" in await wire.head()
        for number in range(10):
            assert await wire.chunk() == b"data: %d\n\n" % number
            seen.set()
        assert await wire.chunk() == b""
        assert proxy.tails[0].total == 90
        assert proxy.tails[0].last().endswith(b"data: 9\n\n")


async def test_small_answer_is_one_piece() -> None:
    """Head and body of a small answer arrive together."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(ok(b"hi"))

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        assert (await wire.reader.read(1 << 16)).endswith(b"\r\n\r\nhi")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n\r\nto the end", STREAM + chunk(b"to the end") + b"0\r\n\r\n"])
@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_framing_suits_the_client(answer: bytes, version: bytes) -> None:
    """Whatever tells the end on the engine's side, the client gets what its version knows."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(answer)

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(b"GET / " + version + b"\r\nHost: h\r\nConnection: close\r\n\r\n")
        head = await wire.head()
        assert (b"chunked" in head) is (version == b"HTTP/1.1")
        body = await wire.rest()
        assert body == (b"to the end" if version == b"HTTP/1.0" else b"a\r\nto the end\r\n0\r\n\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_a_body(status: bytes) -> None:
    """204 and 304 have none, and the connection goes on."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.head()
            await wire.send(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")

    async with proxying(script) as proxy, client(proxy.port) as wire:
        for _ in range(2):
            await wire.send(get())
            assert await wire.head() == b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n"


async def test_head_is_passed_as_head() -> None:
    """HEAD asks the engine with HEAD; length or chunks are told, no byte follows."""

    async def script(wire: Wire) -> None:
        while True:
            head = await wire.head()
            assert head.startswith(b"HEAD")
            await wire.send(STREAM if b"/stream" in head else ok(b"x" * 5)[:-5])

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"Content-Length: 5" in await wire.head()
        assert b"text/event-stream" in await wire.head()
        assert proxy.engine.connections == 1


@pytest.mark.parametrize("cut", [STREAM + chunk(b"half"), ok(b"half more")[:-5], STREAM + b"5\r\nhal"])
async def test_engine_that_dies_in_mid_answer(cut: bytes) -> None:
    """Half an answer never looks whole to the client, and the handler learns of it."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(cut)

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        with pytest.raises(asyncio.IncompleteReadError):
            await wire.answer()
        await until(lambda: not proxy.server.statistics().running)
        assert isinstance(proxy.faults[0], EngineProtocolError)


async def test_engine_that_dies_for_a_client_of_http_10() -> None:
    """Where only the end of the connection would tell, the client sees a reset."""
    passed = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM + chunk(b"half"))
        await passed.wait()

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(b"GET / HTTP/1.0\r\n\r\n")
        await wire.until(b"half")
        passed.set()
        with pytest.raises(ConnectionResetError):
            await wire.rest()


@pytest.mark.parametrize("raw", [b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Le", b""])
async def test_engine_without_an_answer_is_a_502(raw: bytes) -> None:
    """Before the first byte of a body there is still a status to tell what happened."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(raw)

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        status, body = await wire.answer()
        assert (status, b"engine" in body) == (502, True)


async def test_slow_client_holds_the_engine_back() -> None:
    """What a client does not read is not read from the engine either; read late, all of it is there, in order."""
    size = 32 << 20
    sent = 0

    async def floods(wire: Wire) -> None:
        nonlocal sent
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for number in range(size >> 16):
            await wire.send(bytes([number & 255]) * (1 << 16))
            sent += 1 << 16

    async with proxying(floods) as proxy, client(proxy.port) as wire:
        wire.reader._limit = 1 << 16  # type: ignore[attr-defined]
        await wire.send(get())
        await wire.head()
        await until(lambda: any(connection.paused for connection in proxy.server.shared.connections))
        stalled = sent
        assert stalled < size / 2
        held = max(connection.transport.get_write_buffer_size() for connection in proxy.server.shared.connections)
        assert held < 2 << 20
        for number in range(size >> 16):
            assert await wire.exactly(1 << 16) == bytes([number & 255]) * (1 << 16)


async def test_connection_is_free_when_the_answer_is_whole() -> None:
    """The engine's connection serves the next request although the client of the last one still reads."""

    async def script(wire: Wire) -> None:
        while True:
            head = await wire.head()
            await wire.send(ok(b"x" * (4 << 20) if b"/long" in head else b"hi"))

    async with proxying(script) as proxy, client(proxy.port) as slow:
        await slow.send(get(b"/long"))
        await slow.head()
        async with client(proxy.port) as quick:
            for _ in range(3):
                await quick.send(get())
                assert await quick.answer() == (200, b"hi")
        assert len(await slow.exactly(4 << 20)) == 4 << 20
        await until(lambda: proxy.pool.statistics().idle == proxy.pool.statistics().open)


async def test_added_dropped_and_begun() -> None:
    """Headers can be added and left out; a stream that a comment began gets the body only."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.head()
            await wire.send(STREAM.replace(b"Content", b"Access-Control-Allow-Origin: *\r\nContent", 1))
            await wire.send(chunk(b"data: 1\n\n") + b"0\r\n\r\n")

    async with engine(script) as (_, pool):

        async def handle(request: Request, responder: Responder) -> None:
            if request.path == "/begun":
                responder.start(200, [(b"X", b"ours")], length=None)
                responder.write(b": wait\n\n")
            response = await pool.request("GET", b"/", [], b"")
            added = [(b"Server-Timing", b"x")]
            await relay(
                response, responder, headers=added, tail=Tail(), started=responder.started, drop=(b"access-control-",)
            )

        async with serving(handle) as server, client(server.port) as wire:
            await wire.send(get())
            head = await wire.head()
            assert b"Server-Timing: x\r\n" in head
            assert b"Access-Control" not in head
            assert await wire.chunks() == b"data: 1\n\n"
            await wire.send(get(b"/begun"))
            assert b"X: ours\r\n" in await wire.head()
            assert await wire.chunks() == b": wait\n\ndata: 1\n\n"


async def test_error_after_the_beginning_is_the_callers_to_tell() -> None:
    """When an engine ends early the responder is still open, so that the front can send an error event."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(STREAM + chunk(b"data: 1\n\n"))

    async with engine(script) as (_, pool):

        async def handle(request: Request, responder: Responder) -> None:
            response = await pool.request("GET", b"/", [], b"")
            try:
                await relay(response, responder, headers=[], tail=Tail())
            except EngineProtocolError as error:
                responder.write(b"data: " + error.message.encode() + b"\n\n")
                responder.finish()

        async with serving(handle) as server, client(server.port) as wire:
            await wire.send(get())
            status, body = await wire.answer()
            assert (status, body.count(b"data: ")) == (200, 2)
            assert b"closed the connection before the end" in body


@pytest.mark.parametrize("theirs", [b"", b"X-Accel-Buffering: no\r\n", b"x-accel-buffering: yes\r\n"])
@pytest.mark.parametrize(("kind", "count"), [(b"Text/Event-Stream; charset=utf-8", 1), (b"application/json", 0)])
async def test_nothing_in_between_may_collect_a_stream(theirs: bytes, kind: bytes, count: int) -> None:
    """Every event stream says so, once; other answers say what the engine says."""

    async def script(wire: Wire) -> None:
        await wire.head()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: " + kind + b"\r\n" + theirs + b"Content-Length: 0\r\n\r\n")

    async with proxying(script) as proxy, client(proxy.port) as wire:
        await wire.send(get())
        head = await wire.head()
        assert head.count(b"X-Accel-Buffering: no\r\n") == (count or theirs.count(b"X-Accel-Buffering: no"))
        assert head.lower().count(b"x-accel-buffering") == (count or bool(theirs))
