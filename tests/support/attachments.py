"""An attachment in a test, with everything that it tells written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bioproxy import aio
from bioproxy.engines.attach import Attachment
from bioproxy.engines.facts import EngineFacts
from bioproxy.events import Bus, EngineChanged
from bioproxy.wire.upstream import Pool, parse_origin

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
        async with asyncio.timeout(15):
            while len(found := [value for told, value in self.calls if told == name]) < count:
                self.more.clear()
                await self.more.wait()
        return found[-1]


def make(url: str, told: Told, **options: Any) -> Attachment:
    """An attachment to `url` that tells `told` everything."""
    bus = Bus()
    bus.subscribe(EngineChanged, lambda event: told.note(event.state, event.reason))
    attachment = Attachment(Pool(parse_origin(url)), bus=bus, **{"interval": QUICK, **options})

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

    assert await aio.poll(look, interval=0.005, deadline=15), f"{attachment.state}, not {wanted}: {attachment.reason}"
