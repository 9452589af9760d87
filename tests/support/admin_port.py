"""An admin port on a real socket, with an app behind it that only remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bioproxy.activity import Outcome, Record, Ring
from bioproxy.admin.admin import Admin
from bioproxy.admin.events import Hub, Listener, event_blocks
from bioproxy.config.schema import Limits
from bioproxy.errors import ConfigError, NotFound, Problem
from bioproxy.events import Bus, Event
from bioproxy.metrics import Metrics
from bioproxy.wire.server import Server
from support.http import Answer, call
from support.settings import settings


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

    async def reload(self) -> tuple[str, ...]:
        """Count, or fail as the test wants."""
        if self.problems:
            raise ConfigError(self.problems)
        self.reloads += 1
        return ("prefixes",)


class WatchedHub(Hub):
    """A hub that tells a test when listeners come and go."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus, event_blocks)
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
        async with asyncio.timeout(5):
            while len(self.listeners) != number:
                self.moved.clear()
                await self.moved.wait()


class AdminPort:
    """The running port; `ask` sends it one request."""

    def __init__(self, **config: Any) -> None:
        self.settings = settings(**config)
        self.backstage = Backstage()
        self.bus = Bus()
        self.ring = Ring()
        self.hub = WatchedHub(self.bus)
        self.admin = Admin(
            settings=self.settings,
            metrics=Metrics(self.bus),
            ring=self.ring,
            bus=self.bus,
            status=self.backstage.status,
            unready=self.backstage.unready,
            warm=self.backstage.warm,
            reload=self.backstage.reload,
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


def record(number: int, *, outcome: Outcome = "ok", miss: str = "") -> Record:
    """A request's record."""
    return Record(
        id=f"r{number}", started=float(number), method="POST", path="/x", endpoint="other", outcome=outcome, miss=miss
    )
