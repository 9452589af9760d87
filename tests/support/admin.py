"""The admin routes on a real socket, with an app behind them that only remembers what it was asked.

Below it, records and rows of requests that never were, and the routes of activity, captures and events with views that
a test can change.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from bioproxy.activity import Finding, InflightRequest, Outcome, Place, Record
from bioproxy.admin.activity_api import ActivityApi
from bioproxy.admin.activity_row import Row, Tokens
from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.admin import Admin
from bioproxy.admin.captures import Captures
from bioproxy.admin.config_api import ConfigTrial
from bioproxy.admin.events import Hub, Listener, SwapEvents, event_blocks
from bioproxy.admin.page import WebPage
from bioproxy.admin.routes import Question, refuse
from bioproxy.admin.templates_api import TemplatesApi
from bioproxy.config.dialect.schema import DialectConfig, Store
from bioproxy.config.schema import MIB, Limits
from bioproxy.errors import BioproxyError, ConfigError, NotFound, Problem
from bioproxy.events import Bus, Event, RequestEnded
from bioproxy.front.inflight import Inflight
from bioproxy.logbook import Logbook
from bioproxy.metrics import Metrics
from bioproxy.wire.http1.message import Request, Responder
from bioproxy.wire.http1.router import NotAllowed, Router
from bioproxy.wire.server import Server
from support.config_files import settings
from support.http import Answer, build, call


class Status(msgspec.Struct):
    """A status of one field."""

    engine: str = "ready"


class Backstage:
    """What a test wants shown, and what was asked."""

    def __init__(self) -> None:
        self.reason = ""
        self.problems: list[Problem] = []
        self.warmed: list[str] = []
        self.reloads = 0

    def status(self) -> Status:
        """Everything about now."""
        return Status()

    def unready(self) -> str:
        """Why nothing is served."""
        return self.reason

    async def warm(self, prefix: str) -> list[dict[str, str]]:
        """Know the prefix @code only."""
        if prefix != "@code":
            raise NotFound(f"there is no prefix {prefix}")
        self.warmed.append(prefix)
        return [{"state": "waiting"}]

    async def trial(self, _texts: Mapping[str, bytes]) -> ConfigTrial:
        """Nothing would change."""
        return ConfigTrial()

    async def reload(self) -> tuple[str, ...]:
        """Count, or fail as the test wants."""
        if self.problems:
            raise ConfigError(self.problems)
        self.reloads += 1
        return ("prefixes",)


class Deaf:
    """A connection whose client never reads."""

    keep = True

    def write(self, data: bytes) -> None: ...
    async def drain(self) -> None: ...
    def cut(self, *, reset: bool = False) -> None: ...
    def take_from(self, source: object) -> None: ...
    def tunnel_to(self, receive: object) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class WatchedHub(Hub):
    """A hub that tells a test when listeners come and go."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.moved = asyncio.Event()

    def join(self, listener: Listener) -> None:
        """One more."""
        self.moved.set()
        super().join(listener)

    def leave(self, listener: Listener) -> None:
        """One less."""
        super().leave(listener)
        self.moved.set()

    async def count(self, number: int) -> None:
        """Wait until exactly `number` listen."""
        async with asyncio.timeout(30):
            while len(self.listeners) != number:
                self.moved.clear()
                await self.moved.wait()


class AdminPort:
    """The running port; `ask` sends it one request."""

    def __init__(self, *, page: WebPage | None = None, **config: Any) -> None:
        self.settings = settings(**config)
        self.backstage = Backstage()
        self.bus = Bus()
        self.records: deque[Record] = deque()
        self.hub = WatchedHub(self.bus, event_blocks)
        self.admin = Admin(
            settings=self.settings,
            metrics=Metrics(self.bus),
            records=self.records,
            bus=self.bus,
            status=self.backstage.status,
            unready=self.backstage.unready,
            reload=self.backstage.reload,
            more=(
                *(one for one in TemplatesApi(tuple, warm=self.backstage.warm).entries() if one.method == "POST"),
                *(page.entries() if page is not None else ()),
            ),
            page=page,
            stream=self.hub,
        )
        self.server = Server(self.admin.handle, limits=Limits(), name="admin")

    async def ask(self, method: str, target: str, **headers: str) -> Answer:
        """One request; underscores in header names are dashes."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await call(self.server.port, method, target, headers=fields)

    @property
    def listening(self) -> bool:
        """Whether anyone listens to the event stream."""
        return bool(self.bus.subscribers[Event])


@asynccontextmanager
async def admin_port(**config: Any) -> AsyncIterator[AdminPort]:
    """An admin port with these config values, closed with the block."""
    port = AdminPort(**config)
    await port.server.listen("127.0.0.1", 0)
    try:
        yield port
    finally:
        port.admin.close()
        await port.server.close(deadline=1.0)


def record(number: int, *, outcome: Outcome = "ok", finding: Finding | None = None) -> Record:
    """A request's record."""
    known: dict[str, Any] = {
        "id": f"r{number}",
        "started": float(number),
        "method": "POST",
        "path": "/x",
        "endpoint": "other",
    }
    return Record(**known, outcome=outcome, finding=finding)


def system_changed(now: str) -> Finding:
    """A finding that quotes a prompt."""
    return Finding(cause="system_changed", tokens=79, place=Place("system message", "content", 4, "", "old", now))


def metered(**fields: Any) -> Record:
    """A request for a model that has ended well."""
    known: dict[str, Any] = {
        "id": "r", "started": 1_800_000_000.25, "total": 1.5, "method": "POST", "path": "/v1/chat/completions",
        "endpoint": "/v1/chat/completions", "status": 200, "model": "llama", "metered": True,
        "content_type": "application/json",
    }  # fmt: skip
    return Record(**(known | fields))


def row(second: int = 0, **fields: Any) -> Row:
    """A row, `second` seconds after the first ones."""
    known: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(1_800_000_000 + second, UTC), "model": "llama",
        "req_path": "/v1/chat/completions", "resp_content_type": "application/json", "resp_status_code": 200,
        "tokens": Tokens(), "duration_ms": 5,
    }  # fmt: skip
    return Row(**(known | fields))


@asynccontextmanager
async def table(path: str | None = None, limit: int = 1000, *, max_age: float = 0.0) -> AsyncIterator[ActivityStore]:
    """An open activity table, closed with the block."""
    swap = DialectConfig(store=Store(path=path), metrics_max_in_memory=limit)
    store = ActivityStore(settings(swap, kv__max_age=max_age))
    await store.start()
    try:
        yield store
    finally:
        await store.close()


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


class WatchedEvents(WatchedHub, SwapEvents):
    """A stream that tells a test when clients come and go."""


class ActivityPort:
    """All parts, as app puts them together."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.views = Views()
        self.book = Logbook()
        self.store = ActivityStore(settings())
        self.captures = Captures(MIB)
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
        self.router: Router[Any] = Router()
        self.router.add("GET", "/api/metrics/activity", api.activity)
        self.router.add("GET", "/api/metrics/stats", api.stats)
        self.router.add("GET", "/api/captures/{id}", api.capture)
        self.router.add("POST", "/api/inflight/{id}/cancel", api.cancel)
        self.router.add("GET", "/api/events", self.events.serve)
        self.server = Server(self.handle, limits=Limits(), name="activity")

    def cancel(self, identity: str, shows: Callable[[str], bool]) -> bool:
        """Know the request `r1` of ann only."""
        self.cancelled.append(identity)
        return identity == "r1" and shows("ann")

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
