"""The schedule: requests, loads, unloads and what became of processes go in, effects come out.

See the package's docstring for what it promises, `round.py` for how it decides. No clock in here: `now` only has to be
monotonic. Every method returns the effects to carry out, in order; afterwards a timer for `wake` is due (`tick`).

Failed starts. All requests that wait are told at once, with the engine's last words; one that comes within the back-off
(1, 2, 4, … 60 s) is told the same without a start. A load that was asked for explicitly, or a change of the
configuration, ends it. One case is tried again before a client hears of it: the process died within 10 s of a stop,
another model's or its own last one's. Drivers free memory late, and containers their name, so it gets 2 s and a second
try.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.models import home
from bioproxy.models.book import Book, ModelSettings, ModelStatistics, Record
from bioproxy.models.effects import Effect, StopReason
from bioproxy.models.round import Round
from bioproxy.models.rules import Rules
from bioproxy.models.state import Aim, Event, State
from bioproxy.models.waits import GOING, Part
from bioproxy.models.wish import Place, Wish
from bioproxy.station import Price

LATE = 10.0  # seconds after a stop in which a start may die for lack of memory, of a name or of a port
PAUSE = 2.0  # seconds until the second try


class ScheduleStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The schedule as it is now; `closed` are models whose newcomers wait behind an overdue request."""

    waiting: int
    running: int
    closed: tuple[str, ...]
    models: tuple[ModelStatistics, ...]


class Schedule:
    """Decides for all models of one configuration. `queue_limit` and `swap.max_wait` are read when they count."""

    def __init__(
        self,
        models: Iterable[ModelSettings],
        *,
        rules: Rules,
        now: float,
        settings: Settings,
    ) -> None:
        self.settings = settings
        self.book = Book(rules, settings)
        for one in models:
            self.book.know(Record(one, now=now), one)
        self.wake = math.inf
        self.is_closed = False
        self.rests = False  # no model comes by itself

    def let_in(self, wish: Wish, now: float) -> bool:
        """Serve a request whose model is ready, which is nearly all of them: nothing has to be decided for it."""
        record = self.book.records.get(wish.model)
        if record is None or wish.load or not record.serves() or record.name in self.book.closed or self.is_closed:
            return False
        if 0 < record.settings.limit <= len(record.waiting) + len(record.running):
            return False
        self.book.number(wish, now)
        self.book.run(wish, record, now)
        return True

    def request(self, wish: Wish, now: float) -> list[Effect]:
        """A request or a load arrives: it goes, waits, or fails."""
        record = self.book.records.get(wish.model)
        if not self.admit(wish, record, now) or record is None:
            return self.book.taken()
        self.book.push(wish, record, now)
        return self.look(now)

    def admit(self, wish: Wish, record: Record | None, now: float) -> bool:
        """Whether the wish may wait at all; if not, it has failed."""
        book = self.book
        if self.is_closed:
            book.fail(wish, "shutdown", f"[{wish.model}] shutdown")
        elif record is None or record.removed:
            book.fail(wish, "unknown", "no local server found for requested model")
        elif wish.load:
            self.forgive(record, now)
            return True
        elif 0 < record.settings.limit <= len(record.waiting) + len(record.running):
            book.fail(wish, "limit", "Too many requests", 1)
        elif record.backing_off(now):
            book.fail(wish, "failed", record.reason, record.retry_at - now)
        elif 0 < self.settings.config.queue_limit <= len(book.waiting) and not record.serves():
            book.fail(wish, "full", f"{len(book.waiting)} requests wait already (queue_limit)", 1)
        else:
            return True
        return False

    def end(self, wish: Wish, now: float, *, tool_calls: bool = False) -> list[Effect]:
        """A request is over, or its client left while it waited; `tool_calls`: its answer ended in tool calls."""
        record = self.book.records.get(wish.model)
        if wish.place in (Place.NEW, Place.DONE) or record is None:
            wish.place = Place.DONE
            return []
        waited = wish.place is Place.WAITING
        wish.place = Place.DONE
        if waited:
            self.book.leave(wish)
            return self.look(now)
        record.running.discard(wish)
        record.last_used = now
        if tool_calls:
            record.tools_at = now
        if record.running or not (self.book.waiting or record.aim is Aim.LEAVE):
            if record.settings.ttl:
                self.wake = min(self.wake, record.unload_at())
            if self.book.home:
                self.wake = min(self.wake, now + self.book.records[self.book.home].settings.home)
            return []
        return self.look(now)

    def recall(self, wish: Wish, now: float) -> list[Effect]:
        """A request that only waited in its engine's gate is given back; it keeps its place in the order."""
        record = self.book.records.get(wish.model)
        if wish.place is not Place.RUNNING or record is None:
            return []
        record.running.discard(wish)
        if self.is_closed:
            self.book.fail(wish, "shutdown", f"[{wish.model}] shutdown")
        elif record.removed:
            self.book.fail(wish, "removed", no_longer(record))
        else:
            self.book.wait(wish, record)
        return self.look(now)

    def ready(self, model: str, life: int, now: float) -> list[Effect]:
        """A process is healthy and its cache is back: all that wait for it are served, whatever else waits."""
        record = self.living(model, life)
        if record is None or record.state is State.READY:
            return []
        starting = record.state is State.STARTING
        self.book.change(record, Event.HEALTHY, now)
        if starting:
            record.load_seconds = now - record.started_at
            record.last_used = now
            record.used = record.again = False
            self.serve_waiting(record, now)
        return self.look(now)

    def serve_waiting(self, record: Record, now: float) -> None:
        """Serve all who waited while a model was loaded."""
        for wish in list(record.waiting.values()):
            self.book.leave(wish)
            self.book.grant(wish, record, now)

    def ended(self, model: str, life: int, now: float, *, reason: str = "", died: bool = True) -> list[Effect]:
        """No process of this life is left. `reason` is the engine's own (its last words), for those who are told.

        `died`: it ended by itself; False if it could not be run at all, or was ended because it did not get healthy.
        """
        record = self.living(model, life)
        if record is None:
            return []
        self.book.gone(record, now, reason)
        if record.state is State.FAILED:
            self.failed(record, now, reason, died=died)
        else:
            record.failures = 0
        return self.look(now)

    def failed(self, record: Record, now: float, reason: str, *, died: bool) -> None:
        """A start failed: try once more if memory may have been freed late, else tell all who wait."""
        if died and self.deserves_second_try(record, now):
            record.come(frozenset(), start_at=now + PAUSE, again=True)
            record.reason = reason
            return
        record.again = False
        record.fault(reason, now)
        self.book.fail_waiting(record, "failed", reason, record.retry_at - now)

    def deserves_second_try(self, record: Record, now: float) -> bool:
        """Whether a request waits, it was the first try, and a process before it ended a moment ago.

        Its own end, if it had been ready, is no process before it.
        """
        freed = (
            other.freed_at
            for other in self.book.records.values()
            if other is not record or other.freed_at <= record.started_at
        )
        return record.wanted and not record.again and now - max(freed, default=-math.inf) <= LATE

    def living(self, model: str, life: int) -> Record | None:
        """The model's record if `life` is its present process; reports of earlier ones are worth nothing."""
        record = self.book.records.get(model)
        present = record is not None and record.life == life and (record.state.live or self.is_closed)
        return record if present else None

    @property
    def unloaded(self) -> str:
        """What a request is told that waited for a model that was unloaded; of many models in llama-swap's words."""
        return "the engine was unloaded" if self.settings.one else f"{self.book.rules.name}: model unloaded"

    def unload(self, model: str, now: float, *, grace: float | None = None) -> list[Effect]:
        """Stop a model after what runs on it, or after `grace` seconds (its unload_timeout); what waits for it fails.

        It is unloaded when its state is no longer live (`Changed`). Nothing else waits for that.
        """
        record = self.book.records.get(model)
        if record is None or self.is_closed:
            return []
        self.book.fail_waiting(record, "unloaded", self.unloaded)
        if model == self.book.home:
            self.book.rested = home.last_used(self.book)
        self.send_away(record, "unload", now, grace=grace)
        return self.look(now)

    def send_away(self, record: Record, reason: StopReason, now: float, *, grace: float | None = None) -> None:
        """Let a model stop as soon as it can, if it has a process that is not stopping already."""
        if record.state in (State.STARTING, State.READY):
            record.leave(reason, now + (record.settings.unload_timeout if grace is None else grace))

    def tick(self, now: float) -> list[Effect]:
        return self.look(now)

    def look(self, now: float) -> list[Effect]:
        """Decide what can be decided, and when to look again."""
        if self.is_closed:
            self.wake = math.inf
            return self.book.taken()
        if self.comes_home() <= now:
            home.go(self.book, now)
        self.wake = min(Round(self.book, now).run(), self.comes_home())
        return self.book.taken()

    def comes_home(self) -> float:
        """When the default model comes back by itself; infinity: it does not."""
        return math.inf if self.rests else home.due(self.book)

    def forgive(self, record: Record, now: float) -> None:
        record.forgive()
        self.book.change(record, Event.FORGIVE, now)

    def configure(self, models: Iterable[ModelSettings], *, rules: Rules, now: float) -> list[Effect]:
        """Take over a new configuration: what is unchanged runs on, and its streams too.

        A model whose `launch` changed stops after what runs on it (its unload_timeout at most); requests that wait
        for it are served by its next process. One that is no longer configured goes the same way, and they fail.
        """
        self.book.rules = rules
        wanted = {settings.id: settings for settings in models}
        for record in list(self.book.records.values()):
            if record.name in wanted:
                self.adapt(record, wanted.pop(record.name), now)
            else:
                self.remove(record, now)
        for settings in wanted.values():
            self.book.know(Record(settings, now=now), settings)
        return self.look(now)

    def adapt(self, record: Record, settings: ModelSettings, now: float) -> None:
        """Give a model its new settings; restart it only if its process would be another one."""
        changed = record.settings.launch != settings.launch
        back = record.removed and record.aim is Aim.LEAVE and record.why == "removed"
        self.book.know(record, settings)
        record.removed = False
        self.forgive(record, now)
        if changed:
            self.send_away(record, "reload", now)
        elif back:
            record.aim = Aim.STAY

    def remove(self, record: Record, now: float) -> None:
        """Forget a model, its process first if there is one."""
        self.book.fail_waiting(record, "removed", no_longer(record))
        record.stay_away()
        if record.state.live:
            record.removed = True
            self.send_away(record, "removed", now)
        else:
            self.book.forget(record)

    def close(self, now: float) -> list[Effect]:
        """Shut down: what waits fails, every process is stopped; later requests fail, later reports are accepted."""
        self.is_closed = True
        self.wake = math.inf
        for record in self.book.records.values():
            self.book.fail_waiting(record, "shutdown", f"[{record.name}] shutdown")
            if record.state in (State.STARTING, State.READY):
                self.book.stop(record, "shutdown", now)
            self.book.change(record, Event.CLOSE, now)
        return self.book.taken()

    def waiting_for(self, model: str) -> tuple[Wish, ...]:
        """What waits for `model`, in order of arrival; what the first needs is restored before `ready` is reported."""
        record = self.book.records.get(model)
        return tuple(record.waiting.values()) if record else ()

    def position(self, wish: Wish) -> int:
        """Where a waiting wish stands, 1 is next; 0 if it does not wait."""
        if wish.place is not Place.WAITING:
            return 0
        return 1 + self.book.ahead(wish)

    def stage(self, model: str, part: Part, now: float) -> None:
        """A life says how far it is: its start concerns those who wait for it, its stop those it makes room for."""
        for record in self.book.records.values():
            if record.name == model or (part in GOING and record.aim is Aim.COME and model in record.displaces):
                record.stage = part
                if record.waiting:
                    record.waits.turn(record.part(now, why="in_use"), now)

    def waited(self, model: str, now: float) -> dict[Part, float]:
        """The seconds that were waited for `model` so far, by what for; two looks tell of one wait."""
        record = self.book.records.get(model)
        return record.waits.until(now) if record else {}

    def waits_for(self, model: str) -> Part:
        """What those who wait for `model` wait for now."""
        record = self.book.records.get(model)
        return record.waits.part if record else ""

    def state(self, model: str) -> State | None:
        """A model's state, None for an unknown one; it may inform, never gate a change: ask by `request`."""
        record = self.book.records.get(model)
        return record.state if record else None

    def since(self, model: str) -> float:
        """When a model came into its state; nought for an unknown one."""
        record = self.book.records.get(model)
        return record.since if record else 0.0

    def is_leaving(self, model: str) -> bool:
        """Whether a model's process has to go, now or when nothing runs on it any more."""
        record = self.book.records.get(model)
        return record is not None and (record.state is State.STOPPING or record.aim is Aim.LEAVE)

    def is_coming(self, model: str) -> bool:
        """Whether a start of `model` was decided on, and has not come to its end."""
        record = self.book.records.get(model)
        return record is not None and (record.aim is Aim.COME or record.state is State.STARTING)

    def note_price(self, model: str, price: Price) -> None:
        """What a model's cache holds, and what it takes to have it back from disk (None: not there)."""
        record = self.book.records.get(model)
        if record is not None:
            record.price = price

    def statistics(self) -> ScheduleStatistics:
        """Everything there is to know, as a value."""
        records = self.book.records.values()
        return ScheduleStatistics(
            waiting=len(self.book.waiting),
            running=sum(len(record.running) for record in records),
            closed=tuple(sorted(self.book.closed)),
            models=tuple(record.statistics() for record in records),
        )


def no_longer(record: Record) -> str:
    """The sentence for requests that wait for a model that a reload took away."""
    return f'model "{record.name}" is no longer configured'
