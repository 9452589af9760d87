"""The routes of activity, captures and events on a real socket, with views that a test can change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from bioproxy.activity import InflightRequest, Record
from bioproxy.admin.activity_api import ActivityApi
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.captures import Captures
from bioproxy.admin.events import Listener, SwapEvents
from bioproxy.admin.routes import Question, refuse
from bioproxy.config.schema import Limits
from bioproxy.errors import BioproxyError
from bioproxy.events import Bus, RequestEnded
from bioproxy.front.inflight import Inflight
from bioproxy.logbook import Logbook
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.router import NotAllowed, Router
from bioproxy.wire.server import Server
from support.http import Answer, build, call
from support.settings import settings


class Views:
    """What the stream shows."""

    def __init__(self) -> None:
        self.state = "stopped"
        self.active = ""
        self.running: list[InflightRequest] = []

    def models(self) -> list[dict[str, str]]:
        return [{"id": "llama", "state": self.state}]

    def profile(self) -> str:
        return self.active

    sessions = ("X-Session-ID",)

    def snapshot(self) -> list[InflightRequest]:
        return self.running


class WatchedEvents(SwapEvents):
    """A stream that tells a test when clients come and go."""

    moved: asyncio.Event

    def join(self, listener: Listener) -> None:
        self.moved.set()
        super().join(listener)

    def leave(self, listener: Listener) -> None:
        super().leave(listener)
        self.moved.set()

    async def count(self, number: int) -> None:
        """Wait until exactly `number` clients are there."""
        while len(self.listeners) != number:
            self.moved.clear()
            await self.moved.wait()


class ActivityPort:
    """All parts, as app puts them together."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.views = Views()
        self.book = Logbook()
        self.store = ActivityStore(settings())
        self.captures = Captures(1)
        self.cancelled: list[str] = []
        api = ActivityApi(self.bus, store=self.store, captures=self.captures, cancel=self.cancel)
        logs = {"proxy": self.book.proxy, "upstream": self.book.upstream}
        self.events = WatchedEvents(
            self.bus,
            models=self.views.models,
            profile=self.views.profile,
            inflight=cast("Inflight", self.views),
            logs=logs,
        )
        self.events.moved = asyncio.Event()
        self.router: Router[Any] = Router()
        self.router.add("GET", "/api/metrics/activity", api.activity)
        self.router.add("GET", "/api/metrics/stats", api.stats)
        self.router.add("GET", "/api/captures/{id}", api.capture)
        self.router.add("POST", "/api/inflight/{id}/cancel", api.cancel)
        self.router.add("GET", "/api/events", self.events.serve)
        self.server = Server(self.handle, limits=Limits(), name="activity")

    def cancel(self, identity: str) -> bool:
        """Know the request `r1` only."""
        self.cancelled.append(identity)
        return identity == "r1"

    async def handle(self, request: Request, responder: Responder) -> None:
        """Serve one request."""
        found = self.router.match(request.method, request.path)
        assert found is not None
        assert not isinstance(found, NotAllowed)
        try:
            await found[0](Question(request, responder, found[1]))
        except BioproxyError as error:
            refuse(responder, error)

    async def ask(self, target: str, method: str = "GET") -> Answer:
        """One request."""
        return await call(self.server.port, method, target)

    def end(self, record: Record, **more: Any) -> None:
        """A request has ended."""
        self.bus.publish(RequestEnded(record=record, **more))


class Client:
    """One listener of the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def listen(cls, port: ActivityPort) -> Client:
        """Connect, and return when the head has come."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port.server.port, limit=8 << 20))
        client.writer.write(build("GET", "/api/events"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        return client

    async def next(self) -> tuple[str, Any]:
        """The next message: its type, and its data decoded twice."""
        while not (line := await self.reader.readline()).startswith(b"data:"):
            assert line, "the stream has ended"
        outer = json.loads(line.removeprefix(b"data:"))
        return outer["type"], json.loads(outer["data"])

    async def until(self, kind: str) -> Any:
        """The data of the next message of a type."""
        while (found := await self.next())[0] != kind:
            pass
        return found[1]

    async def welcome(self) -> list[tuple[str, Any]]:
        """The six messages that say what is."""
        return [await self.next() for _ in range(6)]

    def leave(self) -> None:
        """Close without a word."""
        self.writer.close()


@asynccontextmanager
async def activity_port() -> AsyncIterator[ActivityPort]:
    """The port, closed with the block."""
    port = ActivityPort()
    await port.store.start()
    await port.server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        port.events.close()
        await port.server.close(deadline=1.0)
        await port.captures.close()
        await port.store.close()
