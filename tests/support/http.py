"""A small blocking-free HTTP client for tests: one request per connection, every byte visible.

The standard library alone, so that nothing of bioproxy's own parser judges bioproxy's answers.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
from typing import Any

import msgspec


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
