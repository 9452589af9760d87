"""Both ends of a proxy, played by tests with asyncio's streams: a client that sees every byte, an engine that obeys.

Nothing here shares a line with bioproxy's own parser.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from bioproxy.config.schema import Limits
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.relay import Tail, relay, tunnel
from bioproxy.wire.server import Server
from bioproxy.wire.upstream import Pool, parse_origin
from support.leaks import until

MS = 0.001
Handler = Callable[[Request, Responder], Coroutine[Any, Any, None]]
Script = Callable[["Wire"], Awaitable[None]]


class Wire:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *pieces: bytes) -> None:
        """Send bytes, each piece on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Read up to and with `end`."""
        return await self.reader.readuntil(end)

    async def exactly(self, count: int) -> bytes:
        """Read so many bytes."""
        return await self.reader.readexactly(count)

    async def head(self) -> bytes:
        """Read a head."""
        return await self.until(b"\r\n\r\n")

    async def rest(self) -> bytes:
        """Read to the end of the connection; ConnectionResetError if it is no clean one."""
        return await self.reader.read()

    async def answer(self) -> tuple[int, bytes]:
        """Read one answer with a length or in chunks: status and body."""
        head = (await self.head()).lower()
        status = int(head.split()[1])
        if b"transfer-encoding: chunked" in head:
            return status, await self.chunks()
        if status in {204, 304} or b"content-length: " not in head:
            return status, b""
        return status, await self.exactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    async def chunk(self) -> bytes:
        """Read one chunk."""
        size = int(await self.until(b"\r\n"), 16)
        return (await self.exactly(size + 2))[:-2]

    async def chunks(self) -> bytes:
        """Read chunks to the last one."""
        body = b""
        while piece := await self.chunk():
            body += piece
        return body

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request with a length: head and body."""
        head = await self.head()
        lines = head.lower().split(b"content-length: ")
        return head, await self.exactly(int(lines[1].split(b"\r\n")[0])) if len(lines) > 1 else b""

    async def gone(self) -> None:
        """Wait until the other side has left, however."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def end(self) -> None:
        """Say that nothing more will be sent."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Leave at once, without a goodbye."""
        self.writer.transport.abort()

    def close(self) -> None:
        """Leave."""
        self.writer.close()


@contextlib.asynccontextmanager
async def client(port: int) -> AsyncIterator[Wire]:
    """A connection to a server on this machine."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield wire
    finally:
        wire.close()
        with contextlib.suppress(ConnectionError):
            await wire.writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(handler: Handler, *, limits: Limits | None = None) -> AsyncIterator[Server]:
    """A server on a free port; at the end nothing of it is left."""
    server = Server(handler, limits=limits or Limits(), name="test")
    await server.listen("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.close(deadline=0)
        statistics = server.statistics()
        assert (statistics.connections, statistics.running) == (0, 0)


class Engine:
    """An engine that runs one script per connection; `faults` are what scripts raised."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.faults: list[BaseException] = []
        self.wires: list[Wire] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script for a new connection."""
        self.connections += 1
        wire = Wire(reader, writer)
        self.wires.append(wire)
        try:
            await self.script(wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the proxy left, as it may
        except RuntimeError as error:  # what uvloop says of writing to a connection that is gone
            if "handler is closed" not in str(error):
                self.faults.append(error)
        except BaseException as error:
            self.faults.append(error)
            raise
        finally:
            wire.close()


@contextlib.asynccontextmanager
async def engine(script: Script) -> AsyncIterator[tuple[Engine, Pool]]:
    """A scripted engine and a pool of connections to it; at the end none is left."""
    played = Engine(script)
    listener = await asyncio.start_server(played.connected, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    pool = Pool(parse_origin(f"http://127.0.0.1:{port}"))
    try:
        yield played, pool
    finally:
        await pool.close()
        assert pool.statistics().open == 0
        listener.close()
        for wire in played.wires:
            wire.close()
        await until(lambda: all(wire.writer.transport.is_closing() for wire in played.wires))
        assert not played.faults


class Proxy(msgspec.Struct):
    """A server that relays everything to a scripted engine."""

    server: Server
    pool: Pool
    engine: Engine
    tails: list[Tail] = []
    faults: list[BaseException] = []
    ended: Callable[[Tail], bool] = lambda _tail: False

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.server.port

    async def handle(self, request: Request, responder: Responder) -> None:
        """Pass one request on."""
        try:
            response = await self.pool.request(request.method, request.target, request.headers, request.body)
            if response.upgraded:
                await tunnel(response, responder)
                return
            tail = Tail()
            self.tails.append(tail)
            await relay(response, responder, headers=[], tail=tail, ended=lambda: self.ended(tail))
        except BaseException as error:
            self.faults.append(error)
            raise


@contextlib.asynccontextmanager
async def proxying(script: Script, *, limits: Limits | None = None) -> AsyncIterator[Proxy]:
    """A proxy before a scripted engine; at the end nothing is left on either side."""

    async def handle(request: Request, responder: Responder) -> None:
        await proxy.handle(request, responder)

    async with engine(script) as (played, pool), serving(handle, limits=limits) as server:
        proxy = Proxy(server, pool, played)
        yield proxy


def get(path: bytes = b"/", *lines: bytes) -> bytes:
    """A GET."""
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: h", *lines, b"", b""])


def post(body: bytes, *lines: bytes, path: bytes = b"/") -> bytes:
    """A POST with a length."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"Host: h", length, *lines, b"", body])


def ok(body: bytes, *lines: bytes) -> bytes:
    """A 200 with a length, as an engine sends it."""
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 200 OK", length, *lines, b"", body])


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)
