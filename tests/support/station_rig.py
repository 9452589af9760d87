"""A station before the runnable fake llama-server, one life of its engine after the other, as a unit would lead it.

Below it, an attachment alone, with everything that it tells written down.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.config.schema import Config, Kv
from bioproxy.config.settings import Settings
from bioproxy.engines.attach import Attachment
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.engines.pace import Pace
from bioproxy.events import Bus, EngineChanged, Event
from bioproxy.station import Station
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.fake_engine import FakeEngine
from support import kv_rig
from support.kv_rig import text
from support.leaks import tasks

LONG = text(400, "long")


class StationRig(kv_rig.Rig):
    """The station's own keeper, gate and pool, asked as kv_rig asks them."""

    def __init__(
        self, engine: FakeEngine, folder: Path, config: Config, *, templates: Mapping[str, str], **kv: Any
    ) -> None:
        self.engine = engine
        self.fake = engine
        self.bus = Bus()
        self.events: list[Event] = []
        self.bus.subscribe(Event, self.events.append)
        self.pool = Pool(parse_origin(engine.url))
        values = {"min_seconds": 0.01, "min_free": 0, "save_after": 3600.0, **kv}
        self.settings = Settings(config)
        catalogue = Catalogue(templates, folder=str(folder), settings=self.settings, bus=self.bus)
        catalogue.load()
        self.station = Station(
            self.pool,
            settings=self.settings,
            kv=msgspec.convert(values, Kv),
            key="",
            bus=self.bus,
            catalogue=catalogue,
            pins=Pins(None),
            heads=Heads(str(folder / "heads"), settings=self.settings, max_age=3600.0),
            shelves=None,
            owned=True,
            model="a",
        )
        self.llama, self.gate, self.keeper = self.station.llama, self.station.gate, self.station.keeper
        self.before = tasks()

    async def begin(self) -> float:
        """A life begins."""
        self.llama.pace = Pace(self.llama.ask)  # it is the same process, and a test does not wait for its pace
        self.station.pool.reopen()
        return await self.station.attach([], lambda: None)

    async def fill(self, **faults: Any) -> None:
        """A life begins, a conversation is resident, and from now on the engine has these faults."""
        await self.begin()
        await self.ask(LONG)
        await self.fake.faults(**faults)
        await self.fake.forget()

    async def saving(self) -> None:
        """Wait until the engine was asked for a save since `fill`."""

        async def look() -> bool | None:
            asked = [one for one in await self.fake.requests() if one.query.get("action") == "save"]
            return bool(asked) or None

        assert await aio.poll(look, interval=0.005, deadline=30.0)

    async def restart_alone(self) -> None:
        """The life ends as a swap ends it, and the next one begins with nobody waiting."""
        await self.station.save(5.0)
        await self.station.detach("it is being stopped")
        await self.settle()
        await self.fake.restart()
        await self.begin()

    def is_shut(self) -> bool:
        """Nobody gets at the engine, no connection is open, no service runs."""
        closed = not self.gate.queue.open and not self.pool.statistics().open
        return closed and not self.left() and self.station.attachment.state == "absent"

    def left(self) -> Counter[str]:
        """Tasks that were not there before."""
        return tasks() - self.before - Counter({asyncio.current_task().get_name(): 1})  # type: ignore[union-attr]

    async def close(self) -> None:
        """The end."""
        await self.station.detach("the test is over")
        await self.keeper.close()


@asynccontextmanager
async def station_rig(
    folder: Path, *, config: Config | None = None, templates: Mapping[str, str] | None = None, **kv: Any
) -> AsyncIterator[StationRig]:
    """A station and its engine, which is running; nothing is attached yet. `templates`: files by prefix."""
    async with FakeEngine(slot_folder=folder / "slots", tokens_per_second=4000) as engine:
        rig = StationRig(engine, folder, config or Config(), templates=templates or {}, **kv)
        try:
            yield rig
        finally:
            await rig.close()


QUICK = 0.02  # seconds between looks, so that no test waits for a clock


class Told:
    """What an attachment told, in order, and a way to wait for it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.more = asyncio.Event()

    def note(self, name: str, value: Any = None) -> None:
        """Something was told."""
        self.calls.append((name, value))
        self.more.set()

    def names(self) -> list[str]:
        """What was told, without the values."""
        return [name for name, _ in self.calls]

    async def until(self, name: str, count: int = 1) -> Any:
        """Wait until `name` was told `count` times; its last value."""
        async with asyncio.timeout(30):
            while len(found := [value for told, value in self.calls if told == name]) < count:
                self.more.clear()
                await self.more.wait()
        return found[-1]


def make(url: str, told: Told, **options: Any) -> Attachment:
    """An attachment to `url` that tells `told` everything."""
    bus = Bus()
    bus.subscribe(EngineChanged, lambda event: told.note(event.state, event.reason))
    attachment = Attachment(Llama(Pool(parse_origin(url))), bus=bus, **{"interval": QUICK, **options})

    async def on_ready(facts: EngineFacts) -> None:
        told.note("on_ready", facts)

    async def on_stuck(reason: str) -> None:
        told.note("on_stuck", reason)

    attachment.on_ready, attachment.on_stuck = on_ready, on_stuck
    attachment.on_gone = lambda reason: told.note("on_gone", reason)
    attachment.on_emptied = lambda reason: told.note("on_emptied", reason)
    return attachment


@asynccontextmanager
async def running(attachment: Attachment) -> AsyncIterator[Attachment]:
    """The service of `attachment`, ended with the block."""
    task = aio.spawn(attachment.run(), name="attachment")
    try:
        yield attachment
    finally:
        await aio.finish([task])
        await attachment.pool.close()


async def state(attachment: Attachment, wanted: str) -> None:
    """Wait for a state."""

    async def look() -> bool | None:
        return True if attachment.state == wanted else None

    assert await aio.poll(look, interval=0.005, deadline=30), f"{attachment.state}, not {wanted}: {attachment.reason}"
