"""Clients that see every byte, of HTTP and of websockets; ports and certificates for servers.

Nothing of bioproxy's own parser judges bioproxy's answers: Python's standard library reads them, and the websocket
client is a few lines after RFC 6455. Certificates are made on the spot with the `openssl` command. `free_port` is for
programs that cannot be given port 0; the rigs of many models have blocks of ports of their own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import io
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.engines.launch import HIGHEST, LOWEST, is_free

# Each worker has a part of the ports, and goes through it from one to the next: what one test is about to listen on, or
# has for an engine that it starts again, no other chooses meanwhile.
WORKER, WORKERS = os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:], os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
SHARE = (HIGHEST - LOWEST) // int(WORKERS)
steps = itertools.count(os.getpid())


class Answer(msgspec.Struct):
    """A whole answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class FakeSocket(io.BytesIO):
    """What http.client reads an answer from."""

    def makefile(self, *_: object, **__: object) -> FakeSocket:
        """The bytes themselves."""
        return self


def parse(raw: bytes, method: str) -> Answer:
    """The answer in `raw` as Python's own parser reads it."""
    response = http.client.HTTPResponse(FakeSocket(raw), method=method)  # type: ignore[arg-type]
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read())


def build(method: str, target: str, *, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """A request that asks for the connection to be closed after it."""
    fields = {"Host": "localhost", "Connection": "close", **(headers or {})}
    if body or method in {"POST", "PUT"}:
        fields.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


async def exchange(port: int, raw: bytes) -> bytes:
    """Send `raw` and read until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await reader.read()
    finally:
        writer.close()


async def call(
    port: int, method: str, target: str, *, data: Any = None, body: bytes = b"", headers: dict[str, str] | None = None
) -> Answer:
    """One request; `data` is sent as JSON."""
    fields = dict(headers or {})
    if data is not None:
        body = json.dumps(data).encode()
        fields.setdefault("Content-Type", "application/json")
    return parse(await exchange(port, build(method, target, body=body, headers=fields)), method)


def events(answer: Answer) -> list[Any]:
    """The JSON payloads of a stream's `data:` events, `[DONE]` left out."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


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


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl command is missing; it makes the certificate"
)
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Certificate(msgspec.Struct, frozen=True):
    """Two PEM files: a certificate for localhost and 127.0.0.1 that signed itself, and its key."""

    cert: str
    key: str


def certificate(folder: Path, name: str = "tls", *, pass_phrase: str = "", kind: tuple[str, ...] = EC) -> Certificate:
    """Make one in `folder`."""
    made = Certificate(str(folder / f"{name}.pem"), str(folder / f"{name}.key"))
    secret = ("-passout", f"pass:{pass_phrase}") if pass_phrase else ("-nodes",)
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", made.key, "-out", made.cert)
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *secret, "-days", "2", *names, *files], check=True, capture_output=True
    )
    return made


def free_port(*, run: int = 1) -> int:
    """The first of `run` ports in a row that are free on 127.0.0.1, and that no other test has chosen."""
    while True:
        first = LOWEST + SHARE * int(WORKER) + next(steps) % SHARE
        if all(is_free("127.0.0.1", first + further) for further in range(run)):
            for _ in range(run - 1):
                next(steps)
            return first
