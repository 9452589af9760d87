"""A websocket through bioproxy to an engine that speaks it, with a client of a few lines."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.apps import station
from support.clients import fake_line
from support.http import CLOSE, MAGIC, TEXT, Websocket
from support.leaks import assert_nothing_held


@asynccontextmanager
async def connected(port: int, path: str = "/ws") -> AsyncIterator[Websocket]:
    """A websocket after its handshake, which is checked as a browser does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16))
    writer.write(
        b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (path.encode(), key)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert base64.b64encode(hashlib.sha1(key + MAGIC).digest()) in head
    try:
        yield Websocket(reader, writer)
    finally:
        writer.close()


async def test_frames_go_both_ways(tmp_path: Path) -> None:
    """Short and long frames come back as they were; the tunnel holds no grant, so others are served meanwhile."""
    async with fake_line(tmp_path) as line, connected(line.app.proxy_port) as socket:
        for payload in (b"hello", b"x" * 60_000):
            socket.send(TEXT, payload)
            assert await socket.receive() == (TEXT, payload)
        assert station(line.app).gate.idle


async def test_close_is_handed_on(tmp_path: Path) -> None:
    """The engine's last frame and its end reach the client, and nothing of the tunnel is left."""
    async with fake_line(tmp_path) as line:
        async with connected(line.app.proxy_port) as socket:
            socket.send(CLOSE, b"\x03\xe8")
            assert await socket.receive() == (CLOSE, b"\x03\xe8")
            assert await socket.reader.read() == b""
        await assert_nothing_held(line.app)


async def test_client_that_leaves(tmp_path: Path) -> None:
    """A browser tab that is closed ends the engine's side too."""
    async with fake_line(tmp_path) as line:
        async with connected(line.app.proxy_port):
            assert line.app.ports.proxy.statistics().running == 1
        await assert_nothing_held(line.app)
