"""The least HTTP/1.1 server that a fake engine needs, on the standard library alone.

It shares no line with bioproxy's own `wire`: two programs that share a parser agree on its faults. What it keeps of the
real one (cpp-httplib, as seen): chunked streams, a connection closed on its 100th request and after five idle seconds,
and that the end of a client is noticed only when somebody looks (`Reply.gone`). What it does not keep: a client that
shuts down only its writing half counts as gone here.

Requests on one connection are answered one after another. `Reply` also breaks answers on purpose: see `broken`.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote

Json = Any
PHRASES = {status.value: status.phrase for status in HTTPStatus}  # not from http.client: it takes 6 ms to import
COMMON = "Server: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nKeep-Alive: timeout=5, max=100\r\n"


@dataclass
class Call:
    """One request as it came in; `headers` in order and in the case they had."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    query: dict[str, str] = field(default_factory=dict)
    path: str = ""

    def __post_init__(self) -> None:
        """Split and decode the target once."""
        path, _, query = self.target.partition("?")
        self.path = unquote(path)
        self.query = dict(parse_qsl(query, keep_blank_values=True))

    def header(self, name: str) -> str:
        """The first value of `name`, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def json(self) -> Json:
        """The body as JSON; ValueError if it is none."""
        return json.loads(self.body)


class Reply:
    """The answer of one request, written to the connection at once."""

    def __init__(self, transport: asyncio.Transport, gone: asyncio.Event) -> None:
        self.transport, self.gone = transport, gone
        self.started = self.chunked = self.ended = False
        self.coding = ""  # of a stream's body
        self.kind = ""  # of a stream, if it is another one
        self.squeeze = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)

    def head(self, status: int, kind: str, extra: str) -> None:
        """Write status line and headers."""
        self.started = True
        phrase = PHRASES.get(status, "Unknown")
        self.raw(f"HTTP/1.1 {status} {phrase}\r\n{COMMON}Content-Type: {kind}\r\n{extra}\r\n".encode())

    def send(self, status: int, value: Json, *, kind: str = "application/json; charset=utf-8") -> None:
        """Answer with `value`: bytes as they are, text in UTF-8, anything else as JSON."""
        body = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else dumps(value)
        self.head(status, kind, f"Content-Length: {len(body)}\r\n")
        self.raw(body)
        self.ended = True

    def error(self, status: int, message: str, kind: str, **more: Json) -> None:
        """An error in llama-server's own shape."""
        self.send(status, {"error": {"code": status, "message": message, "type": kind, **more}})

    def start(self, kind: str = "text/event-stream") -> None:
        """Begin a stream in chunks."""
        self.chunked = True
        coding = f"Content-Encoding: {self.coding}\r\n" if self.coding else ""
        self.head(200, self.kind or kind, f"{coding}X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n")

    def write(self, data: bytes) -> None:
        """One chunk of a stream."""
        if self.coding:
            data = self.squeeze.compress(data) + self.squeeze.flush(zlib.Z_SYNC_FLUSH)
        self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    def event(self, value: Json, name: str = "") -> None:
        """One server-sent event."""
        self.write((f"event: {name}\n".encode() if name else b"") + b"data: " + dumps(value) + b"\n\n")

    def finish(self) -> None:
        """End a stream."""
        rest = self.squeeze.flush() if self.coding else b""
        self.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest) if rest else b"0\r\n\r\n")
        self.ended = True

    def raw(self, data: bytes) -> None:
        """Bytes as they are; nothing where the client has left."""
        if not self.gone.is_set():
            self.transport.write(data)

    def broken(self, how: str) -> None:
        """Answer what is no good HTTP (a key of BROKEN, or `close`), then close."""
        self.raw(BROKEN.get(how, b""))
        self.transport.close()
        self.ended = True


BROKEN = {
    "garbage": b"\x16\x03\x01\x00\xffthis is no HTTP\r\n\r\n\x00\xff",
    "half_head": b"HTTP/1.1 200 OK\r\nContent-Type: applica",
    "wrong_length": b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"content":"',
    "half_chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ndata: {",
}


def dumps(value: Json) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


Handler = Callable[[Call, Reply, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client: collects a request, runs the handler, then the next one."""

    def __init__(self, handler: Handler, *, requests: int = 100, idle: float = 5.0) -> None:
        self.handler, self.left, self.idle = handler, requests, idle
        self.buffer = bytearray()
        self.gone = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.tunnel: Callable[[bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.rest()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client has left."""
        self.gone.set()
        if self.timer:
            self.timer.cancel()

    def eof_received(self) -> bool:
        """The client has left; keep our side open until somebody looks, as the real server does."""
        self.gone.set()
        return self.task is not None

    def rest(self) -> None:
        """Nothing runs: close after the idle time."""
        if self.timer:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(self.idle, self.transport.close)

    def data_received(self, data: bytes) -> None:
        """Collect; start what is complete."""
        if self.tunnel is not None:
            self.tunnel(data)
            return
        self.buffer += data
        self.advance()

    def advance(self) -> None:
        """Start the handler when a whole request is in the buffer and none runs."""
        if self.task is not None or self.transport.is_closing():
            return
        try:
            call = take_request(self.buffer, self.transport)
        except ValueError:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.transport.close()
            return
        if call is not None:
            if self.timer:
                self.timer.cancel()
            self.left -= 1
            self.task = asyncio.get_running_loop().create_task(self.answer(call))

    async def answer(self, call: Call) -> None:
        """One request to its end, then what came behind it."""
        reply = Reply(self.transport, self.gone)
        try:
            await self.handler(call, reply, self)
        except Exception as error:  # the fake must say what is wrong with it, not hang its tests
            print(f"fake: {call.method} {call.target} failed: {error!r}", flush=True)
            if not reply.started:
                reply.error(500, repr(error), "server_error")
        self.task = None
        if self.tunnel is not None:
            return
        if not reply.ended or self.left <= 0 or self.gone.is_set() or call.header("connection").lower() == "close":
            self.transport.close()
            return
        self.rest()
        self.advance()


def take_request(buffer: bytearray, transport: asyncio.Transport) -> Call | None:
    """Take one whole request off the front of `buffer`; None while it is not all there."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines)
    call = Call(method, target, [(name, value.strip()) for name, _, value in pairs])
    if call.header("expect").lower() == "100-continue" and len(buffer) == end + 4:
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    taken = take_body(buffer, end + 4, call)
    if taken is None:
        return None
    call.body, stop = taken
    del buffer[:stop]
    return call


def take_body(buffer: bytearray, start: int, call: Call) -> tuple[bytes, int] | None:
    """The body behind a head, and where it ends; None while it is not all there."""
    if "chunked" not in call.header("transfer-encoding").lower():
        stop = start + int(call.header("content-length") or 0)
        return (bytes(buffer[start:stop]), stop) if len(buffer) >= stop else None
    body = bytearray()
    while (line := buffer.find(b"\r\n", start)) >= 0:
        size = int(bytes(buffer[start:line]).split(b";")[0], 16)
        if len(buffer) < line + 4 + size:
            return None
        body += buffer[line + 2 : line + 2 + size]
        start = line + 4 + size
        if size == 0:
            return bytes(body), start
    return None


async def serve(handler: Handler, host: str, port: int, *, requests: int, idle: float) -> asyncio.Server:
    """Listen; every connection gets `handler`."""
    loop = asyncio.get_running_loop()

    def made() -> Connection:
        return Connection(handler, requests=requests, idle=idle)

    if host.endswith(".sock"):  # llama-server README, --host
        return await loop.create_unix_server(made, host, backlog=1024)
    return await loop.create_server(made, host, port, reuse_address=True, backlog=1024)
