"""A client of the web page's stream, and what it does with what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.http import build

Json = Any


def applied(status: Json, changes: list[Json]) -> Json:
    """The status with these changes, as the page makes it (ui/src/lib/api/change.ts)."""
    for path, value in changes:
        status = put(status, path, value)
    return status


def put(part: Json, path: list[str | int], value: Json) -> Json:
    """`part` with `value` at the end of `path`; nothing that was there before is changed."""
    if not path:
        return value
    copy: Json = list(part) if isinstance(part, list | tuple) else dict(part)
    copy[path[0]] = put(copy[path[0]], path[1:], value)
    return copy


class LiveClient:
    """One page that is open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status: Json = None
        self.last = ""

    async def next(self) -> tuple[str, Json]:
        """The next event, its name and its data; the status follows. EOFError at the end of the stream."""
        fields: dict[str, str] = {}
        while True:
            line = (await self.reader.readline()).decode()
            if not line:
                raise EOFError
            name, colon, value = line.rstrip("\n").partition(": ")
            if colon and name:
                fields[name] = value
            elif "data" in fields and line == "\n":
                break
        self.last = fields["id"]
        data = json.loads(fields["data"])
        if fields["event"] == "state":
            self.status = data["status"]
        elif fields["event"] == "change":
            self.status = applied(self.status, data["set"])
        return fields["event"], data

    async def until(self, kind: str, **wanted: Json) -> Json:
        """The data of the next event of a kind in which these fields have these values."""
        while True:
            name, data = await self.next()
            if name == kind and all(data.get(field) == value for field, value in wanted.items()):
                return data

    async def ended(self) -> None:
        """Return when the stream has ended."""
        try:
            while True:
                await self.next()
        except EOFError:
            return


@asynccontextmanager
async def watching(port: int, *, last: str = "", key: str = "") -> AsyncIterator[LiveClient]:
    """A page that is open in the block; `last` is the last event that it had."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=8 << 20)
    headers = {"Host": f"localhost:{port}", **({"Last-Event-ID": last} if last else {})}
    # HTTP/1.0 has no chunks, so that a test reads lines
    request = build("GET", "/api/live", headers=headers | ({"Authorization": f"Bearer {key}"} if key else {}))
    writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head.partition(b"\r\n")[0], head + await reader.read(500)
        yield LiveClient(reader, writer)
    finally:
        writer.close()
