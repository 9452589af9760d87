"""Hardware figures over time: who looks, what is kept, and `GET /api/performance`.

`Monitor` is one service: every `performance.every` it looks at the machine in a thread (a GPU driver may take its time)
and keeps the samples of the last hour. Reading `/metrics` and the API looks at what is kept, never at the hardware, so
that ten dashboards cost no more than one. Nothing of this decides about models: it is for people.

The JSON is llama-swap's (facts, 6.5). A figure that a GPU does not tell is 0 there, as its clients expect numbers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

import msgspec

from bioproxy import aio
from bioproxy.admin import gpus as gpu_readers
from bioproxy.admin.gpus import Gpu
from bioproxy.admin.host import Host, Reading, sample
from bioproxy.config.dialect.schema import Performance
from bioproxy.errors import RequestError
from bioproxy.samples import GpuSample, Look

Json: TypeAlias = Any
KEPT_SECONDS = 3600.0
OFF = 503
WRONG_TIME = "invalid 'after' timestamp, use RFC3339 format"


class GpuReader(Protocol):
    def read(self) -> list[Gpu]:
        """All of them, now; blocking, raises nothing."""


class PerformanceStatistics(msgspec.Struct, frozen=True, kw_only=True):
    enabled: bool
    every: float
    looks: int
    gpus: int


def utc_now() -> datetime:
    return datetime.now(UTC)


class Monitor:
    """Takes and keeps samples; `run` is its service. `read` reads the machine, in a thread, and raises nothing."""

    def __init__(
        self,
        settings: Performance,
        *,
        read: Callable[[], Reading] | None = None,
        gpus: GpuReader | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.read = Host().read if read is None else read
        self.gpus = gpu_readers.TheseGpus() if gpus is None else gpus
        self.clock = clock
        self.looks: deque[Look] = deque()
        self.before: Reading | None = None
        self.changed = asyncio.Event()
        self.enabled = False
        self.every = 0.0
        self.configure(settings)

    def configure(self, settings: Performance) -> None:
        """Take over changed settings at once; switched off, what was kept is forgotten."""
        self.enabled, self.every = not settings.disabled, settings.every
        length = max(1, round(KEPT_SECONDS / self.every))
        self.looks = deque(self.looks if self.enabled else (), maxlen=length)
        if not self.enabled:
            self.before = None
        self.changed.set()

    async def run(self) -> None:
        """Look every so often, for ever; a service for aio.guarded."""
        while True:
            self.changed.clear()
            if self.enabled:
                await aio.poll(self.look, interval=self.every, jitter=0.0, moot=self.changed)
            else:
                await self.changed.wait()

    async def look(self) -> None:
        """Take one sample of everything; one that ends after the monitor was switched off is not kept."""
        look, self.before = await asyncio.to_thread(self.take, self.before)
        if self.enabled:
            self.looks.append(look)

    def take(self, before: Reading | None) -> tuple[Look, Reading]:
        reading, cards = self.read(), self.gpus.read()
        at = self.clock()
        system = sample(before, reading, at=at)
        samples = [gpu_readers.sample(gpu, place=place, at=at) for place, gpu in enumerate(cards)]
        return Look(system, tuple(samples)), reading

    def since(self, after: datetime | None) -> list[Look]:
        """What is kept, oldest first; with `after` only what is newer."""
        return [look for look in self.looks if after is None or look.system.timestamp > after]

    def newest(self) -> Look | None:
        return self.looks[-1] if self.looks else None

    def statistics(self) -> PerformanceStatistics:
        cards = len(self.looks[-1].gpus) if self.looks else 0
        return PerformanceStatistics(enabled=self.enabled, every=self.every, looks=len(self.looks), gpus=cards)


def time_of(text: str) -> datetime:
    """A time of RFC 3339, with its zone. RequestError in llama-swap's words."""
    try:
        found = msgspec.convert(text, datetime)
    except msgspec.ValidationError as error:
        raise RequestError(WRONG_TIME) from error
    if found.tzinfo is None:
        raise RequestError(WRONG_TIME)
    return found


def shown(gpu: GpuSample) -> Json:
    """A GPU's sample as llama-swap's clients read it."""
    return {name: 0 if value is None else value for name, value in msgspec.structs.asdict(gpu).items()}


def report(looks: Sequence[Look]) -> Json:
    """The body of `/api/performance`."""
    cards: Iterable[GpuSample] = (gpu for look in looks for gpu in look.gpus)
    return {"enabled": True, "sys_stats": [look.system for look in looks], "gpu_stats": [shown(gpu) for gpu in cards]}


def performance(monitor: Monitor | None, query: Iterable[tuple[str, str]]) -> tuple[int, Json]:
    """Status and body of `GET /api/performance`; RequestError for an `after` that is no time."""
    if monitor is None or not monitor.enabled:
        return OFF, {"enabled": False}
    after = next((value for name, value in query if name == "after"), "")
    return 200, report(monitor.since(time_of(after) if after else None))
