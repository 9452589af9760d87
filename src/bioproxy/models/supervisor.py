"""The supervisor: carries out what the schedule decides, and tells it what became of that.

All decisions are in `schedule.py`; here are tasks, futures and one timer. Each *life* of a process has one task that
starts it, waits for its end or for the order to stop it, and stops it (`life.py`); no other task touches the process.
So a stop that comes during a start is an order that this task finds, not a second task that fights it.

    request ─► Schedule.request ─► Serve / Fail ─► the future of the request that waits
                     │ Start ─► a task for one life ─► ready / ended ─► Schedule …
                     │ Stop ──► the order of that life
                     └ Recall ► those who still wait in that model's gate come back, and wait here

What can be cancelled where: a request that waits for its model is cancelled at that future, and the schedule hears
`end`. Only `close` cancels a life's task, and then it still ends its process.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping

from bioproxy import aio
from bioproxy.errors import BioproxyError, ModelFailed, QueueTimeout
from bioproxy.events import Bus, ModelChanged
from bioproxy.gate.forecast import FRESH, LONGEST_RETRY
from bioproxy.models import outlook
from bioproxy.models.book import ModelSettings
from bioproxy.models.effects import UNSPECIFIC, Changed, Effect, Fail, Loaded, Recall, Serve, Start, Stop, error_of
from bioproxy.models.life import Lives
from bioproxy.models.rules import Rules
from bioproxy.models.schedule import Schedule, ScheduleStatistics
from bioproxy.models.state import State
from bioproxy.models.unit import Unit
from bioproxy.models.wish import Place, Wish

log = logging.getLogger(__name__)

CROWDED = frozenset({"limit", "full"})  # why a request fails that may come again
NEWS = 0.25  # seconds until a process's end is told: its connections close a little before


class Supervisor:
    """Starts, swaps and stops models."""

    def __init__(
        self,
        schedule: Schedule,
        units: Mapping[str, Unit],
        *,
        bus: Bus,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.schedule = schedule
        self.lead = "" if schedule.settings.one else UNSPECIFIC
        self.units = dict(units)
        self.bus = bus
        self.clock = clock
        self.lives = Lives(schedule, bus=bus, clock=clock, report=self.carry_out, gone=self.left)
        self.claims: set[Wish] = set()  # of requests and loads that were not released
        self.timer: asyncio.TimerHandle | None = None
        self.armed = math.inf  # when it goes off
        self.news = asyncio.Event()  # some state changed; replaced each time
        self.refusal: Callable[[], BioproxyError] | None = None
        self.played: dict[str, tuple[float, dict[int, float]]] = {}  # when, and what `until_served` found, by model

    # what requests ask

    def enter(self, wish: Wish) -> None:
        """Ask for a model. Afterwards `future` is None if the model is ready; else `wait` for it, or `release` it.

        Raises at once what is refused at once (ModelBusy, QueueFull, ModelFailed, NotFound).
        """
        if self.refusal is not None:
            raise self.refusal()
        now = self.clock()
        if self.schedule.let_in(wish, now):
            self.claims.add(wish)
            wish.unit = self.lives.present[wish.model].unit
            return
        if self.schedule.state(wish.model) is not State.READY:
            self.note_prices()
        self.claims.add(wish)
        wish.future = asyncio.get_running_loop().create_future()
        self.carry_out(self.schedule.request(wish, now))
        if wish.future.done():
            try:
                wish.future.result()
            finally:
                wish.future = None

    async def again(self, wish: Wish, *, timeout: float) -> None:  # noqa: ASYNC109 - told to the client
        """Wait anew with a wish that was recalled, or whose engine died before it got anything."""
        wish.recalled = False
        if self.refusal is not None:  # it waited nowhere when all were told
            self.release(wish)
            raise self.refusal()
        if wish.cut == "unload":
            self.release(wish)
            raise ModelFailed(f"{self.lead}{self.schedule.unloaded}")
        if wish.place is not Place.RUNNING:  # its process is gone
            self.claims.discard(wish)
            wish.renew()
            self.enter(wish)
        else:
            wish.future = asyncio.get_running_loop().create_future()
            self.carry_out(self.schedule.recall(wish, self.clock()))
        await self.wait(wish, timeout=timeout)

    async def wait(self, wish: Wish, *, timeout: float) -> None:  # noqa: ASYNC109 - as above
        """Sleep until `wish` is served or has failed; if the wait ends in any other way, its place is given back.

        Raises what it fails with, QueueTimeout after `timeout` seconds (0: none). Cancelling it leaves the queue.
        """
        if wish.future is None:
            return
        try:
            async with asyncio.timeout(timeout or None):
                await wish.future
        except TimeoutError:
            self.release(wish)
            state = self.schedule.state(wish.model)
            now = state.value if state else "gone"
            message = f"waited {timeout:.0f} s (queue_timeout) for the model {wish.model}, which is {now}"
            raise QueueTimeout(message, retry_after=self.retry_after(wish.model)) from None
        except BaseException:
            self.release(wish)
            raise
        finally:
            wish.future = None

    def release(self, wish: Wish, *, tool_calls: bool = False) -> None:
        """A request is over, or its client left; `tool_calls`: its answer ended in some, so the next one will come."""
        if wish in self.claims:
            self.claims.discard(wish)
            effects = self.schedule.end(wish, self.clock(), tool_calls=tool_calls)
            if effects or self.schedule.wake != self.armed:
                self.carry_out(effects)

    async def load(self, model: str, *, timeout: float) -> None:  # noqa: ASYNC109 - as above
        """Have `model` loaded, whatever its back-off says; raises as `enter` and `wait` do."""
        wish = Wish(model, load=True)
        self.enter(wish)
        await self.wait(wish, timeout=timeout)
        self.claims.discard(wish)

    async def unload(self, model: str, *, grace: float | None = None) -> None:
        """Stop `model` after what runs on it, or after `grace` seconds; returns when it is stopped.

        No other model waits for that. A model that is not loaded is no error.
        """
        self.carry_out(self.schedule.unload(model, self.clock(), grace=grace))
        life = self.lives.present.get(model)
        if life is not None and life.task is not None and life.task is not asyncio.current_task():
            await asyncio.wait([life.task])

    async def unload_all(self) -> None:
        await asyncio.gather(*(self.unload(model) for model in list(self.lives.present)))

    async def confirm(self, model: str) -> None:
        """A request found the engine of `model` gone: let the news of its process's end arrive first.

        The shim tells within milliseconds; without this a second try would meet the same dead process.
        """
        life = self.lives.present.get(model)
        ended = life.unit.ended if life is not None else None  # not `units`: a reload may have put another one there
        if life is not None and ended is not None:
            news = self.news
            await asyncio.wait([ended], timeout=NEWS)
            looked_after = life.unit.station.looked_after
            if ended.done() and not looked_after and self.schedule.state(model) is State.READY:
                await aio.wait_first(news, timeout=NEWS)

    # configuration and end

    def configure(self, settings: Iterable[ModelSettings], units: Mapping[str, Unit], *, rules: Rules) -> None:
        """Take over a new configuration: what did not change runs on. `units` are all of them, known ones kept."""
        self.units = dict(units)  # a life keeps its own to its end
        self.carry_out(self.schedule.configure(settings, rules=rules, now=self.clock()))

    def refuse(self, why: Callable[[], BioproxyError]) -> None:
        """For the shutdown, or a pause: from now on requests that wait or come get the error; what runs, runs on.

        Nor does a model come by itself.
        """
        self.refusal = why
        self.schedule.rests = True
        for wish in self.claims:
            if wish.future is not None and not wish.future.done():
                wish.future.set_exception(why())

    def accept(self) -> None:
        """Take requests again."""
        self.refusal = None
        self.schedule.rests = False
        self.carry_out(self.schedule.tick(self.clock()))

    async def close(self, deadline: float) -> None:
        """Stop every model; `deadline` seconds in all, then what is left is killed."""
        self.carry_out(self.schedule.close(self.clock()))
        if self.timer is not None:
            self.timer.cancel()
            self.timer, self.armed = None, math.inf
        tasks = [life.task for life in self.lives.present.values() if life.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline)
            await aio.finish(late, deadline=10.0)

    # effects

    def carry_out(self, effects: list[Effect]) -> None:
        """Do what was decided, in order, and set the timer for the next look."""
        for effect in effects:
            match effect:
                case Serve(wish) | Loaded(wish):
                    self.settle(wish, None)
                case Fail(wish, why):
                    error = error_of(effect, self.lead)
                    if why in CROWDED:
                        error.retry_after = self.retry_after(wish.model)
                    self.settle(wish, error)
                case Start():
                    self.lives.begin(effect, self.units[effect.model])
                case Stop():
                    self.order(effect)
                case Recall():
                    self.recall(effect)
                case Changed():
                    self.changed(effect)
        if self.lives.swaps:
            self.lives.forget_given_up()
        if self.schedule.wake != self.armed:
            self.set_timer()

    def settle(self, wish: Wish, error: BioproxyError | None) -> None:
        """Wake the task that waits with `wish`."""
        known = wish in self.claims
        if error is not None:
            self.claims.discard(wish)
        if not known or wish.future is None or wish.future.done():
            return
        if error is None:
            self.grant(wish)
            wish.future.set_result(None)
        else:
            wish.future.set_exception(error)

    def grant(self, wish: Wish) -> None:
        """Note whose process it has: by the time it wakes, a reload may have put another unit in its place."""
        life = self.lives.present.get(wish.model)
        wish.unit = life.unit if life is not None else None

    def order(self, effect: Stop) -> None:
        """Tell a life to end, and those that run on it why they are cut."""
        if self.lives.order(effect):
            for wish in self.claims:
                if wish.model == effect.model and wish.place is Place.RUNNING:
                    wish.cut = effect.reason

    def left(self, model: str) -> None:
        """A model's process is gone: requests in its gate wait here again."""
        for wish in self.claims:
            if wish.model == model:
                self.take_back(wish)

    def recall(self, effect: Recall) -> None:
        """Take back the requests that only wait in the model's gate and came after the one that waited too long."""
        for wish in self.claims:
            if wish.model == effect.model and wish.number > effect.newer_than:
                self.take_back(wish)

    def take_back(self, wish: Wish) -> None:
        """Let a request that waits in a gate wait here again."""
        if wish.in_gate is not None and not wish.recalled:
            wish.recalled = True
            wish.in_gate.cancel()

    def changed(self, effect: Changed) -> None:
        """Tell the program, and the tasks that wait for a state."""
        event = ModelChanged(model=effect.model, old=effect.old.value, new=effect.new.value, reason=effect.reason)
        self.bus.publish(event)
        news, self.news = self.news, asyncio.Event()
        news.set()

    def set_timer(self) -> None:
        """One timer, for the schedule's next look."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.armed = wake = self.schedule.wake
        if wake != math.inf:
            self.timer = asyncio.get_running_loop().call_later(max(0.0, wake - self.clock()), self.tick)

    def tick(self) -> None:
        self.timer, self.armed = None, math.inf
        self.carry_out(self.schedule.tick(self.clock()))

    def note_prices(self) -> None:
        """Tell the schedule what each running model's cache would cost to have back."""
        for model, life in self.lives.present.items():
            self.schedule.note_price(model, life.unit.station.price())

    def until_ready(self, model: str) -> float | None:
        """Seconds until `model` is ready for those who wait for it; None if that is not known."""
        return outlook.until_ready(
            self.schedule.book, model, self.clock(), swapped=self.lives.swapped.get, busy=self.busy
        )

    def until_served(self, wish: Wish, cost: Callable[[Wish], float]) -> float | None:
        """Seconds until a waiting wish is served, and has a slot; None if that is not known. `cost`: what one needs.

        Worked out for all that wait for a model at once: each of them asks.
        """
        now, model = self.clock(), wish.model
        then, found = self.played.get(model, (-math.inf, {}))
        if now - then >= FRESH:
            found = outlook.until_served(
                self.schedule.book, model, now, swapped=self.lives.swapped.get, busy=self.busy, cost=cost
            )
            then = now
            self.played[model] = then, found
        if not found:
            return None
        return max(0.0, found.get(wish.number, max(found.values())) - (now - then))

    def busy(self, model: str) -> outlook.Busy:
        """What runs on a model, and waits in its gate."""
        life = self.lives.present.get(model)
        if life is None:
            return outlook.Busy()
        gate = life.unit.station.gate
        running = gate.forecast().running  # and from here on it is known what each that waits needs
        each = gate.queue.bias / gate.queue.capacity
        waiting = tuple((ticket.arrived, ticket.needs * each) for ticket in gate.queue.tickets())
        return outlook.Busy(running, waiting)

    def retry_after(self, model: str) -> int:
        """Whole seconds after which asking for `model` again makes sense: once it is ready, and has a slot."""
        life = self.lives.present.get(model)
        queue = life.unit.station.gate.until() if life is not None else 0.0
        return max(1, math.ceil(min((self.until_ready(model) or 0.0) + queue, LONGEST_RETRY)))

    def unix_time(self, moment: float) -> float:
        """A moment of the schedule's clock as unix time, to the millisecond: two looks tell the same."""
        return round(time.time() - (self.clock() - moment), 3)

    def statistics(self) -> ScheduleStatistics:
        return self.schedule.statistics()
