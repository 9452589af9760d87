"""One look at all that wait: which request may go, which model must stop for which, and when to look again.

Called after each event that may change the answer. Wishes are looked at in this order: the overdue (they have waited
for `max_wait`) by arrival, then the others by their model's priority, then by arrival. For a wish of model M:

1. M is ready: it goes, unless M is *closed* to newcomers by an overdue request before it.
2. M is being started, or was decided on before: it waits for that.
3. Else the rule says which models must stop for M. If all of them can, they are stopped and M starts when they are
   gone; the place is M's from now on. If one of them cannot, none is stopped, and the wish waits:
   - a model with requests that run is never stopped for another: they finish;
   - a model that is being started, and waited for, first serves those who wait;
   - a model that is *held* (in the middle of tool calls, or just loaded again because it and M take turns) stays
     until then, or until M is overdue.
   An overdue wish that has to wait closes what it waits for, and no later one starts what it would have to stop.

In-flight requests are not interrupted, so an overdue wish waits as long as the longest of them, no matter how many
come after.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heapreplace

from bioproxy.models.book import Book, Record
from bioproxy.models.effects import Recall
from bioproxy.models.state import Aim, State
from bioproxy.models.waits import Part
from bioproxy.models.wish import Wish


class Round:
    """A single look, at `now`; `wake` is when the next one is due even if nothing happens."""

    def __init__(self, book: Book, now: float) -> None:
        self.book = book
        self.now = now
        self.wake = math.inf
        self.seconds: dict[str, float] | None = None
        self.settled: set[str] = set()  # models whose wishes all wait
        self.reasons: dict[str, Part] = {}  # why nothing was decided for them
        self.claims: list[str] = []  # models of overdue wishes that have to wait
        self.closed: set[str] = set()
        self.present: set[str] = set()  # models that have memory or are about to
        self.promised: set[str] = set()  # models whose place another one is just taking

    def run(self) -> float:
        """Look at all and take every step that can be taken; returns `wake`."""
        self.end_leaving()
        self.drop_unwanted()
        if self.book.waiting:
            self.survey()
        self.look_at_all()
        self.book.closed = frozenset(self.closed)
        self.begin()
        self.expire()
        self.name_waits()
        return self.wake

    def at(self, when: float) -> None:
        self.wake = min(self.wake, when)

    def overdue(self, wish: Wish) -> bool:
        """Whether `wish` has waited as long as it has to."""
        return self.now >= wish.arrived + self.book.max_wait

    def look_at_all(self) -> None:
        """Look at wishes in order; at a model's next one only if the one before it went.

        So a thousand that wait for a model that cannot come yet are one step.
        """
        heap = [(self.rank(record), record.name) for record in self.book.records.values() if record.waiting]
        heapify(heap)
        while heap:
            record = self.book.records[heap[0][1]]
            self.look(record.first(), record)
            if record.name in self.settled or not record.waiting:
                heappop(heap)
            else:
                heapreplace(heap, (self.rank(record), record.name))

    def rank(self, record: Record) -> tuple[int, int, int]:
        """The turn of a model's first wish; smaller goes first."""
        wish = record.first()
        late = self.overdue(wish)
        return (not late, 0 if late else -record.settings.priority, wish.number)

    def end_leaving(self) -> None:
        """Stop what shall go and has nothing to finish, or had its grace."""
        for record in self.book.records.values():
            if record.aim is not Aim.LEAVE:
                continue
            if record.running and self.now < record.leave_by:
                self.at(record.leave_by)
            else:
                self.book.stop(record, record.why, self.now)

    def drop_unwanted(self) -> None:
        """Forget swaps whose start has not begun and that no request waits for any more."""
        for record in self.book.records.values():
            if record.aim is Aim.COME and not record.wanted:
                record.stay_away()
                record.again = False

    def look(self, wish: Wish, record: Record) -> None:
        """Let one wish go, or decide what happens for it."""
        # rule 1
        if record.serves() and record.name not in self.closed:
            self.book.leave(wish)
            self.book.grant(wish, record, self.now)
            return
        self.settled.add(record.name)
        if record.state in (State.STARTING, State.READY) or record.aim is Aim.COME:
            return  # rule 2; or it is closed, or about to stop for a reload
        if not self.may_come(record):
            return
        self.choose(wish, record)  # rule 3

    def may_come(self, record: Record) -> bool:
        """Whether no model before it has to have its place, or is just taking it."""
        name = record.name
        if name in self.promised:
            return False
        beside = self.present | {name}
        return not any(name in self.evicted(claim, beside - {claim}) for claim in self.claims)

    def choose(self, wish: Wish, record: Record) -> None:
        """Make room for `record`'s model if it can be made now; else note what it waits for."""
        overdue = self.overdue(wish)
        models = [self.book.records[name] for name in sorted(self.evicted(record.name, self.present - {record.name}))]
        busy = (self.busy_until(other, record, overdue=overdue) for other in models)
        until, self.reasons[record.name] = max(busy, default=(-math.inf, "in_use"))
        if until > self.now:
            record.displaces = frozenset(other.name for other in models)
            self.at(until)
            self.block(wish, models, overdue=overdue)
            return
        for other in models:
            self.displace(other, record)
        record.come(frozenset(other.name for other in [*models, record] if other.state.live))
        record.stage = "stop"
        self.survey()

    def survey(self) -> None:
        """See which models have memory, and which are about to."""
        records = [record for record in self.book.records.values() if record.present]
        self.present = {record.name for record in records}
        self.promised = {name for record in records if record.aim is Aim.COME for name in record.displaces}

    def evicted(self, model: str, running: set[str]) -> frozenset[str]:
        """What the rule says must stop for `model`; costs are worked out once, and only if anything runs.

        To wait for a model that is in use costs up to `max_wait` besides.
        """
        if self.seconds is None and running:
            self.seconds = {
                record.name: record.cost(self.now) + (self.book.max_wait if record.running else 0.0)
                for record in self.book.records.values()
                if record.present
            }
        return self.book.rules.evict(model, running, self.seconds or {})

    def busy_until(self, other: Record, record: Record, *, overdue: bool) -> tuple[float, Part]:
        """When `other` can be stopped for `record` as far as the clock says, and why then; infinity: after an event."""
        if other.state is State.STOPPING and other.aim is not Aim.COME:
            return -math.inf, "stop"
        coming = other.state is State.STARTING or other.aim is Aim.COME
        if other.running or (coming and other.wanted):
            return math.inf, "in_use"
        if overdue or other.state is not State.READY:
            return -math.inf, "in_use"
        return other.held_until(record, since=self.now - self.book.max_wait)

    def block(self, wish: Wish, models: list[Record], *, overdue: bool) -> None:
        """Let a wish wait; if it is overdue, newcomers to what it waits for stay behind it."""
        if not overdue:
            self.at(wish.arrived + self.book.max_wait)
            return
        self.claims.append(wish.model)
        for other in models:
            if other.state is not State.READY:
                continue
            if other.name not in self.book.closed | self.closed and other.running:
                self.book.effects.append(Recall(other.name, wish.number))
            self.closed.add(other.name)

    def displace(self, other: Record, record: Record) -> None:
        """Stop `other`, or its coming, for `record`'s model."""
        other.stay_away()
        if other.state in (State.STARTING, State.READY):
            self.book.stop(other, "swap", self.now, displaced_by=record.name)
            other.note_turn(record, self.now)

    def begin(self) -> None:
        """Start what was decided on and whose place is free."""
        for record in self.book.records.values():
            if record.aim is not Aim.COME:
                continue
            if self.now < record.start_at:
                self.at(record.start_at)
            elif not any(self.alive(name) for name in record.displaces):
                self.book.start(record, self.now)

    def name_waits(self) -> None:
        """Say of each model that is waited for what the wait is for from now on."""
        for record in self.book.records.values():
            if record.waiting:
                why = self.reasons.get(record.name, "in_use")
                record.waits.turn(record.part(self.now, why=why), self.now)

    def alive(self, name: str) -> bool:
        """Whether a process of `name` is left."""
        record = self.book.records.get(name)
        return record is not None and record.state.live

    def expire(self) -> None:
        """Unload what was not used for its time to live."""
        for record in self.book.records.values():
            when = record.unload_at()
            if when <= self.now:
                self.book.stop(record, "ttl", self.now)
            else:
                self.at(when)
