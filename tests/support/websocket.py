"""A websocket client of a few lines (RFC 6455), every frame visible."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.http import Answer, build, exchange, parse

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
TEXT, CLOSE = 1, 8
FIELDS = {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}


class Websocket:
    """The client's side after the handshake."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, code: int, payload: bytes) -> None:
        """One masked frame, as clients must send them (RFC 6455, 5.2)."""
        mask = os.urandom(4)
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
        self.writer.write(bytes([0x80 | code]) + length + mask + masked)

    async def receive(self) -> tuple[int, bytes]:
        """One frame: its code and its payload."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self.reader.readexactly(2), "big")
        return first & 0x0F, await self.reader.readexactly(size)


@asynccontextmanager
async def connected(port: int, path: str, **headers: str) -> AsyncIterator[Websocket]:
    """A websocket after its handshake, which is checked as a browser does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        key = base64.b64encode(os.urandom(16))
        writer.write(build("GET", path, headers={**FIELDS, "Sec-WebSocket-Key": key.decode(), **headers}))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert base64.b64encode(hashlib.sha1(key + MAGIC).digest()) in head
        yield Websocket(reader, writer)
    finally:
        writer.close()


async def upgrade(port: int, path: str) -> Answer:
    """The answer to a handshake that is refused; the connection ends with it."""
    fields = {**FIELDS, "Connection": "close, Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    return parse(await exchange(port, build("GET", path, headers=fields)), "GET")
