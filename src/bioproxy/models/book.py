"""The schedule's book: every model and every wish, and the single steps that change them.

A step changes the book and writes down the effect, in one go: nothing is decided that is not also said, and nothing is
said that was not decided. Which steps are taken is decided in `round.py` and `schedule.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.models.effects import Changed, Effect, Fail, Loaded, Serve, Start, Stop, StopReason, Why
from bioproxy.models.rules import Rules, likelihood, seconds_back
from bioproxy.models.state import AIMS, Aim, Event, State, step
from bioproxy.models.waits import COMING, GOING, Part, Waits
from bioproxy.models.wish import Place, Wish
from bioproxy.station import Price

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # seconds between starts that fail in a row
SOUND = 10.0  # seconds that a process must have been ready, or it ended early
EARLY = 3  # early ends in a row, the last of which counts as a start that failed
PING_PONG = 3  # swaps between the same two models within `max_wait`, from which on a model that was loaded stays


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides when a model runs. Times are seconds.

    `launch` is everything that shapes the process, as one text: if it changes, a reload has to restart it.
    `min_resident` None: as long as its load took, but only once two models take turns. `limit`: requests at once
    before 429, 0 for none. `ttl` 0: never. `home`: this is the default model, which comes back after so much idleness;
    0: it does not. `pin`: only a request makes it stop, and only if the rule leaves no choice (models/matrix.py).
    """

    id: str
    launch: str = ""
    ttl: float = 0.0
    limit: int = 0
    priority: int = 0
    linger: float = 5.0
    min_resident: float | None = None
    unload_timeout: float = 10.0  # for requests that run when it is unloaded, and again for the process to end
    swap_grace: float = 10.0  # for the process to end when another model waits
    home: float = 0.0
    pin: bool = False


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it is now. Times are the caller's clock; `unload_at` and `retry_at` 0: does not apply.

    `waits_for` is what those who wait for it wait for since `waits_since`, "" if nobody does; `displaces` are the
    models that make room for it, or would have to.
    """

    model: str
    state: State
    since: float
    running: int
    waiting: int
    waits_for: Part
    waits_since: float
    displaces: tuple[str, ...]
    starts: int
    load_seconds: float | None
    last_used: float
    unload_at: float
    failures: int
    retry_at: float
    reason: str


class Record:
    """One model: its settings, its process's state, what was decided for it, and which requests run on it or wait."""

    def __init__(self, settings: ModelSettings, *, now: float) -> None:
        self.settings = settings
        self.name = settings.id
        self.state = State.STOPPED
        self.since = now
        self.life = 0  # number of the newest process, unique in the whole schedule
        self.starts = 0
        self.running: set[Wish] = set()
        self.waiting: dict[int, Wish] = {}  # by number, so in order of arrival
        self.aim = Aim.STAY
        self.displaces: frozenset[str] = frozenset()  # would have to stop for it; COME: it starts when these are gone,
        self.start_at = -math.inf  # and not before this, for a second try
        self.again = False  # its load is the second try
        self.why: StopReason = "swap"  # LEAVE: it stops for this reason,
        self.leave_by = 0.0  # when nothing runs any more, or at this time
        self.removed = False  # no longer configured, only its process is left
        self.started_at = 0.0
        self.load_seconds: float | None = None
        self.used = False  # since it is ready, by a request or because a load asked for it
        self.last_used = now
        self.tools_at = -math.inf  # when an answer that ended in tool calls was out
        self.freed_at = -math.inf  # the end of a process that had been ready, or was stopped
        self.failures = 0  # in a row
        self.early_ends = 0  # processes in a row that ended soon after they were ready
        self.turns: dict[str, deque[float]] = {}  # the newest swaps with another model, in either direction
        self.retry_at = 0.0
        self.reason = ""  # the newest failure's
        self.price = Price()
        self.waits = Waits()
        self.stage: Part = ""  # how far its start is, or the stop of those that make room for it

    @property
    def present(self) -> bool:
        """Whether it has memory that others may need, or is about to."""
        return self.state.live or self.aim is Aim.COME

    @property
    def wanted(self) -> bool:
        return bool(self.waiting)

    def turn_to(self, aim: Aim) -> None:
        """Have another aim, which its process's state must allow."""
        assert self.state in AIMS[aim], (self.name, self.state, aim)
        self.aim = aim

    def come(self, displaces: frozenset[str], *, start_at: float = -math.inf, again: bool = False) -> None:
        """Start it when `displaces` are gone."""
        self.turn_to(Aim.COME)
        self.displaces, self.start_at, self.again = displaces, start_at, again

    def stay_away(self) -> None:
        """Give a swap to it up, if one was decided."""
        if self.aim is Aim.COME:
            self.aim = Aim.STAY

    def leave(self, why: StopReason, by: float) -> None:
        """Stop it when nothing runs any more; of several such orders the earliest end counts.

        Reloads, one after the other, put nothing off.
        """
        leaves = self.aim is Aim.LEAVE
        self.leave_by = min(by, self.leave_by) if leaves else by
        if not leaves or why != "removed":  # from which a model comes back; not from what was before
            self.why = why
        self.turn_to(Aim.LEAVE)

    def first(self) -> Wish:
        """Of those that wait, the one that arrived first; there is one."""
        return next(iter(self.waiting.values()))

    def serves(self) -> bool:
        return self.state is State.READY and self.aim is Aim.STAY

    def backing_off(self, now: float) -> bool:
        """Whether requests are told at once that its start failed."""
        return self.state is State.FAILED and self.aim is not Aim.COME and now < self.retry_at

    def part(self, now: float, *, why: Part) -> Part:
        """What those who wait for it wait for; `why` nothing was decided for it yet, if nothing was."""
        if self.state is State.STARTING:
            return self.stage if self.stage in COMING else "start"
        if self.aim is Aim.COME and now < self.start_at:
            return "pause"
        if self.aim is Aim.COME or self.state is State.STOPPING:
            return self.stage if self.stage in GOING else "stop"
        return "in_use" if self.state is State.READY else why

    def held_until(self, other: Record, *, since: float) -> tuple[float, Part]:
        """Until when a swap to `other` is held back (no longer than that one's `max_wait`), and by what.

        A model stays for `min_resident` seconds. If none are set, it stays as long as its load took, and only if
        the two took turns too often after `since`, or if a request waits for it: a machine that idles while one waits
        for a first swap is of no use.
        """
        stay = self.settings.min_resident
        if stay is None:
            turns = self.turns.get(other.name)
            taking_turns = turns is not None and len(turns) == PING_PONG and turns[0] >= since
            stay = self.load_seconds or 0.0 if taking_turns or self.wanted else -math.inf
        linger = self.tools_at + self.settings.linger
        resident = self.since + stay if self.used else -math.inf
        return (linger, "linger") if linger >= resident else (resident, "min_resident")

    def note_turn(self, other: Record, now: float) -> None:
        """A swap between this model and `other` was decided."""
        turns = self.turns.get(other.name) or deque(maxlen=PING_PONG)
        turns.append(now)
        self.turns[other.name] = other.turns[self.name] = turns

    def unload_at(self) -> float:
        """When its time to live is over; infinity if it has none or is in use."""
        idle = self.serves() and not self.running and not self.waiting
        return self.last_used + self.settings.ttl if idle and self.settings.ttl > 0 else math.inf

    def fault(self, reason: str, now: float) -> None:
        """Count a start that failed: the next one is tried after 1, 2, 4, … 60 s."""
        self.failures += 1
        self.reason = reason
        self.retry_at = now + min(FIRST_DELAY * 2.0 ** (min(self.failures, 16) - 1), LONGEST_DELAY)

    def forgive(self) -> None:
        """Forget the failures: it was asked for explicitly, or the configuration changed."""
        self.failures = 0
        self.retry_at = 0.0
        self.early_ends = 0

    def cost(self, now: float) -> float:
        """What stopping it would cost, in seconds; requests that run on it come back as surely as those that wait."""
        needed = likelihood(waiting=len(self.waiting) + len(self.running), idle=now - self.last_used)
        return seconds_back(self.price, self.load_seconds) * needed

    def statistics(self) -> ModelStatistics:
        unload_at = self.unload_at()
        return ModelStatistics(
            model=self.name,
            state=self.state,
            since=self.since,
            running=len(self.running),
            waiting=len(self.waiting),
            waits_for=self.waits.part if self.waiting else "",
            waits_since=self.waits.since,
            displaces=tuple(sorted(self.displaces)) if self.waiting else (),
            starts=self.starts,
            load_seconds=self.load_seconds,
            last_used=self.last_used,
            unload_at=0.0 if math.isinf(unload_at) else unload_at,
            failures=self.failures,
            retry_at=self.retry_at,
            reason=self.reason,
        )


class Book:
    """Models, wishes, and the effects since they were last taken."""

    def __init__(self, rules: Rules, settings: Settings) -> None:
        self.rules = rules
        self.settings = settings
        self.records: dict[str, Record] = {}
        self.home = ""  # the default model, if the machine goes back to it
        self.rested = -math.inf  # the last use of any model after which it went back, or shall not
        self.waiting: dict[int, Wish] = {}
        self.numbers: list[int] = []  # of those that wait, in order of arrival
        self.closed: frozenset[str] = frozenset()  # ready, but newcomers wait behind a request that is overdue
        self.effects: list[Effect] = []
        self.arrivals = 0
        self.lives = 0  # never counted anew, or a late report of a model that was removed and added again would count

    @property
    def max_wait(self) -> float:
        """The longest that a request waits behind newcomers of a busy model."""
        return self.settings.config.swap.max_wait

    def taken(self) -> list[Effect]:
        """The effects so far, in order; from now on a new list."""
        effects, self.effects = self.effects, []
        return effects

    def know(self, record: Record, settings: ModelSettings) -> None:
        """Let a model have these settings."""
        record.settings = settings
        self.records[record.name] = record
        if settings.home:
            self.home = record.name
        elif self.home == record.name:
            self.home = ""

    def change(self, record: Record, event: Event, now: float, reason: str = "") -> None:
        """Let `event` happen to a process."""
        old = record.state
        record.state = step(old, event)
        if record.state is not old:
            record.since = now
            self.effects.append(Changed(record.name, old, record.state, reason))

    def push(self, wish: Wish, record: Record, now: float) -> None:
        self.number(wish, now)
        self.wait(wish, record)

    def number(self, wish: Wish, now: float) -> None:
        self.arrivals += 1
        wish.number = self.arrivals
        wish.arrived = now

    def wait(self, wish: Wish, record: Record) -> None:
        """Put a wish among those that wait; one that was recalled goes back to where it stood."""
        wish.place = Place.WAITING
        back = bool(record.waiting) and next(reversed(record.waiting)) > wish.number
        record.waiting[wish.number] = wish
        if back:
            record.waiting = dict(sorted(record.waiting.items()))
        self.waiting[wish.number] = wish
        insort(self.numbers, wish.number)

    def leave(self, wish: Wish) -> None:
        """Take a wish out of those that wait."""
        del self.waiting[wish.number]
        del self.numbers[bisect_left(self.numbers, wish.number)]
        del self.records[wish.model].waiting[wish.number]

    def ahead(self, wish: Wish) -> int:
        """How many wishes arrived before `wish` and wait."""
        return bisect_left(self.numbers, wish.number)

    def grant(self, wish: Wish, record: Record, now: float) -> None:
        """Let a wish go that does not wait (any more)."""
        if wish.load:
            wish.place = Place.DONE
            record.used = True
            record.last_used = now
            self.effects.append(Loaded(wish))
        else:
            self.run(wish, record, now)
            self.effects.append(Serve(wish))

    def run(self, wish: Wish, record: Record, now: float) -> None:
        """Let a request run on a model that is ready."""
        wish.place = Place.RUNNING
        record.running.add(wish)
        record.used = True
        record.last_used = now

    def fail(self, wish: Wish, why: Why, reason: str, retry_after: float | None = None) -> None:
        """Answer a wish with an error, whether it waited or not."""
        if wish.place is Place.WAITING:
            self.leave(wish)
        wish.place = Place.DONE
        seconds = None if retry_after is None else max(1, math.ceil(retry_after))
        self.effects.append(Fail(wish, why, reason, seconds))

    def fail_waiting(self, record: Record, why: Why, reason: str, retry_after: float | None = None) -> None:
        """Answer all who wait for a model with an error."""
        for wish in list(record.waiting.values()):
            self.fail(wish, why, reason, retry_after)

    def start(self, record: Record, now: float) -> None:
        """Start a process whose place is free."""
        record.aim = Aim.STAY
        self.lives += 1
        record.life = self.lives
        record.starts += 1
        record.started_at = now
        record.stage = "start"
        self.change(record, Event.START, now)
        self.effects.append(Start(record.name, record.life, record.again))

    def stop(self, record: Record, reason: StopReason, now: float, *, displaced_by: str = "") -> None:
        """Stop a process that starts or is ready."""
        record.aim = Aim.STAY
        grace = record.settings.swap_grace if reason == "swap" else record.settings.unload_timeout
        self.change(record, Event.STOP, now, reason)
        self.effects.append(Stop(record.name, record.life, reason, grace, displaced_by))

    def gone(self, record: Record, now: float, reason: str) -> None:
        """No process is left: clear what belonged to it. Who ran on it sees its connection break.

        One that was ready and dies is started again for the next request. If one after the other dies soon after it
        was ready, that counts as a failed start in the end: requests shall not wait for it again and again.
        """
        early = record.state is State.READY and now - record.since < SOUND
        record.early_ends = record.early_ends + 1 if early else 0
        unsound = record.early_ends >= EARLY
        for wish in record.running:
            wish.place = Place.DONE
        record.running.clear()
        if record.aim is Aim.LEAVE:
            record.aim = Aim.STAY
        record.tools_at = -math.inf
        if record.state in (State.READY, State.STOPPING):
            record.freed_at = now
        self.change(record, Event.UNSOUND if unsound else Event.ENDED, now, reason)
        if record.removed:
            self.forget(record)

    def forget(self, record: Record) -> None:
        """It is no longer configured, and no process of it is left."""
        del self.records[record.name]
        if self.home == record.name:
            self.home = ""
