"""The lives of models' processes: each from its start to its end, with the one task that lives it.

No other task touches the process: to stop it, an `order` is left, and this task finds it at its next await, in a start
as well as in the long wait for an end. It tells the schedule exactly once each that the engine is ready, and that no
process is left; what the schedule decides then is carried out by the supervisor (`report`).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

import msgspec

from bioproxy import aio
from bioproxy.engines.process import Exit
from bioproxy.errors import BioproxyError
from bioproxy.events import Bus, ModelStopped, SwapEnded
from bioproxy.kv.keeper import Want
from bioproxy.models.effects import Effect, Start, Stop
from bioproxy.models.schedule import Schedule
from bioproxy.models.unit import Died, Started, Stopped, Unit
from bioproxy.models.waits import Part

log = logging.getLogger(__name__)

RESTS = frozenset({"swap", "ttl"})  # reasons for a stop after which an engine that can sleep is kept
START_ENDS = 30.0  # seconds that a start gets to come to its end once its model has to go
SWAP_SAVE = 3.0  # seconds at most for the save of a model that another one displaces: a user waits


class SwapTimes(msgspec.Struct):
    """Where the time of one swap goes, as it is noted; `decided` is when it was."""

    decided: float
    displaced: tuple[str, ...] = ()
    stop: float = 0.0
    save: float = 0.0


class Lives:
    """All lives there are, by model, and the times of swaps. `gone` hears which model's process has ended."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        bus: Bus,
        clock: Callable[[], float],
        report: Callable[[list[Effect]], None],
        gone: Callable[[str], None],
    ) -> None:
        self.schedule = schedule
        self.bus = bus
        self.clock = clock
        self.report = report
        self.gone = gone
        self.present: dict[str, Life] = {}
        self.swaps: dict[str, SwapTimes] = {}  # under way, by the model that comes
        self.swapped: dict[str, SwapEnded] = {}  # each model's newest swap

    def begin(self, effect: Start, unit: Unit) -> None:
        times = self.swaps.setdefault(effect.model, SwapTimes(self.clock()))
        life = self.present[effect.model] = Life(unit, effect.life, times=times, lives=self)
        # in a context of its own: it is not the business of the request that happened to need it
        life.task = contextvars.Context().run(aio.spawn, life.live(), name=f"model {effect.model}")

    def order(self, effect: Stop) -> bool:
        """Tell a life to end; False if that life is over."""
        life = self.present.get(effect.model)
        if effect.displaced_by:
            times = self.swaps.setdefault(effect.displaced_by, SwapTimes(self.clock()))
            times.displaced = (*times.displaced, effect.model)
        if life is None or life.number != effect.life:
            return False
        life.stop_for(effect)
        return True

    def forget_given_up(self) -> None:
        """A swap that was given up, or has failed, ends here: the next one's time begins anew."""
        for model in [model for model in self.swaps if not self.schedule.is_coming(model)]:
            del self.swaps[model]

    # what a life reports

    def save_limit(self, order: Stop) -> float:
        """Seconds for a save: fewer if a user waits for the other model."""
        seconds = self.schedule.settings.config.kv.save_timeout
        return min(SWAP_SAVE, seconds) if order.displaced_by else seconds

    def stage(self, life: Life, part: Part) -> None:
        """How far a start or stop is: a part of the waits for it."""
        if self.present.get(life.model) is life:
            self.schedule.stage(life.model, part, self.clock())

    def is_ready(self, life: Life, started: Started) -> None:
        """The engine is healthy and its cache was looked after: serve those who wait, and tell how long it took."""
        self.swaps.pop(life.model, None)
        if not life.unit.station.looked_after:
            self.tell(life, started)
        self.report(self.schedule.ready(life.model, life.number, self.clock()))

    def tell(self, life: Life, started: Started) -> None:
        """Tell where the time of a swap went."""
        model, now, times = life.model, self.clock(), life.times
        total = now - times.decided
        known = times.stop + times.save + started.start + started.restore
        event = SwapEnded(
            model=model, displaced=times.displaced, stop=times.stop, save=times.save, start=started.start,
            restore=started.restore, ours=max(0.0, total - known),
        )  # fmt: skip
        log.info(
            "%s is ready after %.2f s (stop of %s %.2f s, save %.2f s, start %.2f s, restore %.2f s, ours %.0f ms)",
            model, total, ", ".join(times.displaced) or "nothing", event.stop, event.save, event.start, event.restore,
            event.ours * 1e3,
        )  # fmt: skip
        self.swapped[model] = event
        self.bus.publish(event)

    def is_stopped(self, order: Stop, stopped: Stopped) -> None:
        """An order was carried out; if several models stop at once, the longest counts."""
        times = self.swaps.get(order.displaced_by)
        if times is not None:
            times.save, times.stop = max(times.save, stopped.save), max(times.stop, stopped.end)
        self.bus.publish(ModelStopped(model=order.model, reason=order.reason))

    async def port_is_left(self, life: Life) -> None:
        """Wait for processes that have to go and hold this one's port: a reload gives ports to others."""
        port = life.unit.launch.port
        leaving = [
            other.task
            for other in self.present.values()
            if other is not life
            and other.task is not None
            and other.unit.launch.port == port
            and self.schedule.is_leaving(other.model)
        ]
        if leaving:
            await asyncio.wait(leaving)

    def is_over(self, life: Life, reason: str, *, died: bool) -> None:
        """No process is left; `reason` is "" if that was wanted, `died`: it ended by itself."""
        if self.present.get(life.model) is life:
            del self.present[life.model]
        self.gone(life.model)
        self.report(self.schedule.ended(life.model, life.number, self.clock(), reason=reason, died=died))

    def wants(self, model: str) -> list[Want]:
        """What those who wait for `model` would like to find in its cache, in order of arrival."""
        return [wish.key for wish in self.schedule.waiting_for(model) if wish.key is not None]


class Life:
    """One process of `unit`; `number` is the schedule's. `times` belong to the swap that it was started for."""

    __slots__ = ("lives", "number", "order", "ordered", "task", "times", "unit")

    def __init__(self, unit: Unit, number: int, *, times: SwapTimes, lives: Lives) -> None:
        self.unit = unit
        self.number = number
        self.times = times
        self.lives = lives
        self.unit.on_stage = self.stage
        self.order: Stop | None = None
        self.ordered = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    @property
    def model(self) -> str:
        return self.unit.launch.model

    def stage(self, part: Part) -> None:
        self.lives.stage(self, part)

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
            self.lives.is_over(self, reason, died=died)

    async def run(self) -> str:
        """Start, serve, stop; the reason of an end that was not ordered, else ""."""
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
        self.lives.is_ready(self, starting.result())
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
        await self.lives.port_is_left(self)
        return await self.unit.start(lambda: self.lives.wants(self.model))

    async def first_of(self, task: asyncio.Task[Started] | asyncio.Task[Exit]) -> None:
        """Wait until `task` is done, or it is ordered to end."""
        order = aio.spawn(self.ordered.wait(), name="order")
        try:
            await asyncio.wait([task, order], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await aio.finish([order])

    async def stop(self, *, save: bool) -> None:
        order = self.order
        assert order is not None
        why = f"{order.reason} for {order.displaced_by}" if order.displaced_by else order.reason
        if not self.unit.station.looked_after:
            log.info("%s is being stopped: %s", order.model, why)
        limit = self.lives.save_limit(order) if save else 0.0
        sleeps = save and order.reason in RESTS
        stopping = self.unit.stop(grace=order.grace, save=limit, sleeps=sleeps)
        self.lives.is_stopped(order, await aio.shielded(stopping))
