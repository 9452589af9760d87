"""One life of a model's process, from its start to its end, and the one task that lives it.

Nobody else touches the process: who wants it stopped leaves an `order`, and this task finds it at its next await, in a
start as well as in the long wait for an end. What it reports goes to a `Host` (the supervisor), exactly once each:
that the engine is ready, and that no process is left.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import msgspec

from bioproxy import aio
from bioproxy.engines.process import Exit
from bioproxy.errors import BioproxyError
from bioproxy.models.effects import Stop
from bioproxy.models.unit import Died, Started, Stopped, Unit
from bioproxy.models.waits import Part

log = logging.getLogger(__name__)

START_ENDS = 30.0  # seconds that a start gets to come to its end once its model has to go


class SwapTimes(msgspec.Struct):
    """Where the time of one swap goes, as it is noted; `decided` is when it was."""

    decided: float
    displaced: tuple[str, ...] = ()
    stop: float = 0.0
    save: float = 0.0


class Host(Protocol):
    """Who lets lives begin, and hears of them."""

    def wants(self, model: str) -> list[object]:
        """What those who wait for `model` would like to find in its cache, in order of arrival."""

    def save_limit(self, order: Stop) -> float:
        """Seconds for the save before this stop."""

    def stage(self, life: Life, part: Part) -> None:
        """How far the start or stop is."""

    def is_ready(self, life: Life, started: Started) -> None:
        """The engine is healthy, and its cache was looked after."""

    def is_stopped(self, order: Stop, stopped: Stopped) -> None:
        """An order was carried out."""

    async def port_is_left(self, life: Life) -> None:
        """Return once no process that has to go holds the port that this one will get."""

    def is_over(self, life: Life, reason: str, *, died: bool) -> None:
        """No process is left; `reason` is "" where that was wanted, `died`: it ended by itself."""


class Life:
    """One process of `unit`; `number` is the schedule's. `times` belong to the swap that it was started for."""

    __slots__ = ("host", "number", "order", "ordered", "task", "times", "unit")

    def __init__(self, unit: Unit, number: int, *, times: SwapTimes, host: Host) -> None:
        self.unit = unit
        self.number = number
        self.times = times
        self.host = host
        self.unit.on_stage = self.stage
        self.order: Stop | None = None
        self.ordered = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        """Whose it is."""
        return self.unit.launch.model

    def stage(self, part: Part) -> None:
        """Pass on how far the unit is."""
        self.host.stage(self, part)

    def stop_for(self, order: Stop) -> None:
        """Have it end; the first order counts."""
        if self.order is None:
            self.order = order
            self.ordered.set()

    async def live(self) -> None:
        """The task: from the start to the end, which is reported whatever happens."""
        reason, died = "", True
        try:
            reason = await self.run()
        except BioproxyError as error:
            reason, died = error.message, isinstance(error, Died)
            log.error("%s: %s", self.model, reason)  # noqa: TRY400 - the sentence says it; the trace would be ours
            await aio.shielded(self.unit.clear())
        except Exception as error:
            log.exception("%s: its process was not kept as it should be", self.model)
            reason = f"a fault in bioproxy: {error!r}"
            await aio.shielded(self.unit.clear())
        except asyncio.CancelledError:
            await aio.shielded(self.unit.end(0.0))
            raise
        finally:
            self.host.is_over(self, reason, died=died)

    async def run(self) -> str:
        """Start, serve, stop; the reason of an end that nobody asked for, else ""."""
        unit = self.unit
        starting = aio.spawn(self.start(), name=f"start of {self.model}")
        try:
            await self.first_of(starting)
        finally:
            if not starting.done():
                await aio.finish([starting], deadline=START_ENDS)
        if starting.cancelled() or not starting.done():
            await self.stop(save=False)
            return ""
        self.host.is_ready(self, starting.result())
        ending = aio.spawn(unit.wait_ended(), name=f"end of {self.model}")
        try:
            await self.first_of(ending)
        finally:
            if not ending.done():
                await aio.finish([ending])
        if self.order is None:
            reason = await unit.died()
            log.error("<%s> upstream process exited unexpectedly: %s", self.model, reason)
            return reason
        await self.stop(save=True)
        return ""

    async def start(self) -> Started:
        """Start the process, on a port that is left."""
        await self.host.port_is_left(self)
        return await self.unit.start(lambda: self.host.wants(self.model))

    async def first_of(self, task: asyncio.Task[Started] | asyncio.Task[Exit]) -> None:
        """Wait until `task` is done, or it is ordered to end."""
        order = aio.spawn(self.ordered.wait(), name="order")
        try:
            await asyncio.wait([task, order], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.finish([order])

    async def stop(self, *, save: bool) -> None:
        """Carry out the order to stop."""
        order = self.order
        assert order is not None
        why = f"{order.reason} for {order.displaced_by}" if order.displaced_by else order.reason
        log.info("%s is being stopped: %s", order.model, why)
        limit = self.host.save_limit(order) if save else 0.0
        self.host.is_stopped(order, await aio.shielded(self.unit.stop(grace=order.grace, save=limit)))
