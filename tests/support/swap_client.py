"""A client of bioproxy in the place of llama-swap: plain requests, some in the background, and streams by the event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bioproxy import aio
from support.http import Answer, build, call

Json = Any
CHAT = "/v1/chat/completions"


def message(answer: Answer) -> str:
    """The sentence of an error."""
    return str(answer.json()["error"]["message"])


def server(answer: Answer) -> str:
    """Whose engine answered."""
    assert answer.status == 200, answer.text
    return str(answer.json()["served_by"])


class Stream:
    """A streamed answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader

    async def head(self) -> int:
        """The status, once the head is in."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def event(self) -> Json:
        """The next event's value; `[DONE]` as it is, None if the stream has ended."""
        while line := await self.reader.readline():
            if line.startswith(b"data: "):
                text = line[6:].decode().strip()
                return text if text == "[DONE]" else json.loads(text)
        return None

    async def rest(self) -> list[Json]:
        """All further events."""
        found = []
        while (event := await self.event()) is not None:
            found.append(event)
        return found


class Client:
    """Asks the program that listens on `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[asyncio.Task[Answer]] = []

    async def chat(self, model: str, *, path: str = CHAT, headers: Json = None, **body: Json) -> Answer:
        """One request, its whole answer."""
        data = {"model": model, "messages": [{"role": "user", "content": "hello"}], **body}
        return await call(self.port, "POST", path, data=data, headers=headers)

    def ask(self, model: str, **body: Json) -> asyncio.Task[Answer]:
        """The same, in the background."""
        task = aio.spawn(self.chat(model, **body), name=f"client of {model}")
        self.asked.append(task)
        return task

    async def get(self, target: str) -> Answer:
        """GET."""
        return await call(self.port, "GET", target)

    async def post(self, target: str, data: Json = None) -> Answer:
        """POST."""
        return await call(self.port, "POST", target, data=data)

    @asynccontextmanager
    async def stream(self, model: str, **body: Json) -> AsyncIterator[Stream]:
        """A streamed answer, event by event; leaving the block is the client's leaving."""
        data = {"model": model, "messages": [], "stream": True, **body}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            fields = {"Content-Type": "application/json"}
            writer.write(build("POST", CHAT, body=json.dumps(data).encode(), headers=fields))
            yield Stream(reader)
        finally:
            writer.transport.abort()

    async def leave(self) -> None:
        """Every request in the background is given up."""
        for task in self.asked:
            task.cancel()
        await asyncio.gather(*self.asked, return_exceptions=True)
