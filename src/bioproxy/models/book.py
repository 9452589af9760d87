"""The schedule's book: every model and wish, and the single steps that change them.

A step changes the book and writes down the effect, in one go: nothing is ever decided that is not also said, and the
other way round. Which steps are taken is decided in `round.py` and `schedule.py`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort

from bioproxy.config.settings import Settings
from bioproxy.models.effects import Changed, Effect, Fail, Loaded, Serve, Start, Stop, StopReason, Why
from bioproxy.models.record import EARLY, SOUND, Record
from bioproxy.models.rules import Rules
from bioproxy.models.state import Event, State, step
from bioproxy.models.wish import Place, Wish


class Book:
    """Models, wishes, and the effects since they were last taken."""

    def __init__(self, rules: Rules, settings: Settings) -> None:
        self.rules = rules
        self.settings = settings
        self.records: dict[str, Record] = {}
        self.waiting: dict[int, Wish] = {}
        self.numbers: list[int] = []  # of those that wait, in order of arrival
        self.closed: frozenset[str] = frozenset()  # ready, but newcomers wait behind somebody who is overdue
        self.effects: list[Effect] = []
        self.arrivals = 0
        self.lives = (
            0  # numbers are never used twice, or a late report of a model that was removed and added would count
        )

    @property
    def max_wait(self) -> float:
        """The longest that somebody waits behind newcomers of a busy model."""
        return self.settings.config.swap.max_wait

    def taken(self) -> list[Effect]:
        """The effects so far, in order; from now on a new list."""
        effects, self.effects = self.effects, []
        return effects

    def change(self, record: Record, event: Event, now: float, reason: str = "") -> None:
        """Let `event` happen to a process."""
        old = record.state
        record.state = step(old, event)
        if record.state is not old:
            record.since = now
            self.effects.append(Changed(record.name, old, record.state, reason))

    def push(self, wish: Wish, record: Record, now: float) -> None:
        """Let a new wish wait."""
        self.number(wish, now)
        self.wait(wish, record)

    def number(self, wish: Wish, now: float) -> None:
        """Say when a new wish arrived."""
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
        record.displaces = None
        self.lives += 1
        record.life = self.lives
        record.starts += 1
        record.started_at = now
        record.stage = "start"
        self.change(record, Event.START, now)
        self.effects.append(Start(record.name, record.life, record.again))

    def stop(self, record: Record, reason: StopReason, now: float, *, displaced_by: str = "") -> None:
        """Stop a process that starts or is ready."""
        grace = record.settings.swap_grace if reason == "swap" else record.settings.unload_timeout
        self.change(record, Event.STOP, now, reason)
        self.effects.append(Stop(record.name, record.life, reason, grace, displaced_by))

    def gone(self, record: Record, now: float, reason: str) -> None:
        """No process is left: clear what belonged to it. Who ran on it sees its connection break.

        One that was ready and dies is started again for the next request. If one after the other dies soon after it
        was ready, that counts as a failed start in the end: nobody shall wait for it again and again.
        """
        early = record.state is State.READY and now - record.since < SOUND
        record.early_ends = record.early_ends + 1 if early else 0
        unsound = record.early_ends >= EARLY
        for wish in record.running:
            wish.place = Place.DONE
        record.running.clear()
        record.leaving = None
        record.tools_at = -math.inf
        if record.state in (State.READY, State.STOPPING):
            record.freed_at = now
        self.change(record, Event.UNSOUND if unsound else Event.ENDED, now, reason)
        if record.removed:
            del self.records[record.name]
