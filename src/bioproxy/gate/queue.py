"""What the gate decides, as plain values: no loop, no clock, no futures; `now` is always given.

A ticket is WAITING, then RUNNING, then DONE; it may go from WAITING to DONE (left, timed out, refused), and nothing
ever goes back. Every change of state happens in one synchronous method here, so there is no moment at which a ticket
is in two places, and a cancellation can only land before or after.

The rules, in the order in which they decide:

1. Nothing is granted while the engine is not ready, while one grant has the engine alone, or beyond the capacity.
2. User before side before background; background only when no user and no side ticket waits at all, not even one that
   may not run yet: what we do for ourselves never takes a place that a client is about to need. A side ticket that
   waited for 60 s counts as a user's, so that no number of users starves it.
3. Within a class the higher priority; every 60 s of waiting are one step, so that no request starves.
4. Then the client that used the engine least (fairness.py), then the one with less running, then the first to come.
5. Of one client's tickets, one that extends what the engine holds may overtake, three times in a row at most.

*Exclusive* means alone: slot actions next to a running request lose or corrupt it (kv-rules 3 and 4). A grant may ask
to become exclusive, and is refused or not; if it waits for that, newcomers wait for it after `GRACE` seconds, and of
several one goes after the other. A ticket may ask to be granted exclusively and waits until it is its turn and the
engine is free. A client's must not starve, so after `PATIENCE` seconds its turn holds the others back; our own saves
can wait for a quiet moment and hold nothing back.

A *lane* is what a decision looks at: the waiting tickets that differ in nothing but their turn. A thousand requests of
one client are one lane, whose oldest ticket speaks for all, and taking any of them out (a client left) is one step.

*Draining*: a request whose client left is not over inside the engine at once. Completions may go (they wait there in
order), slot actions may not, until an answer that began later has ended or all slots were seen idle.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from itertools import chain, islice

import msgspec

from bioproxy.activity import Work
from bioproxy.gate.fairness import Account, Shares
from bioproxy.templates.bodies import Body
from bioproxy.wire.relay import Tail

PATIENCE: dict[Work, float] = {"user": 60.0, "side": 60.0, "background": math.inf}  # seconds, see above
GRACE = 1.0  # seconds that whoever waits to be alone lets newcomers go first
NOTICE = 2.0  # seconds within which an engine surely saw that a client left (it looks once a second)
SMOOTHING = 0.2  # weight of the newest grant in the measured duration of one
BIAS, MOST_BIAS = 0.3, 4.0  # how fast a forecast learns by how much it errs, and at most
GUESS = 1.0  # seconds that a grant takes as long as none was measured
AGEING = 60.0  # seconds of waiting that count as one step of priority
OVERTAKES = 3  # in a row, by tickets that extend what is resident
LOOK = 64  # tickets of one client that are asked whether they extend it

Extends = Callable[[object], bool]
OURS = Account("", -math.inf)  # of background work, which is charged to no client


class State(Enum):
    """The life of a ticket; only forwards."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Ticket(msgspec.Struct, eq=False, kw_only=True):
    """One request's place in the gate.

    `conversation` names what it is a turn of, if that is known. `owner` is whose `max_running` counts (empty: the
    client's own; 0: no bound); `key` is what `extends` is asked about; `arrived` and `granted` are seconds of the
    gate's clock. `number`: order of arrival among those that had to wait; `serial`: order of granting. For
    who wants to know how long it takes (forecast.py): `body` is the request's, `tail` the end of its answer, `needs`
    the seconds that it needs once it is granted (0: not asked yet).
    """

    work: Work = "user"
    client: str = ""
    conversation: str = ""
    owner: str = ""
    priority: int = 0
    key: object = None
    max_running: int = 0
    exclusive: bool = False
    arrived: float = 0.0
    granted: float = 0.0
    number: int = 0
    serial: int = 0
    state: State = State.WAITING
    account: Account = OURS
    body: Body | None = None
    tail: Tail | None = None
    needs: float = 0.0

    def __repr__(self) -> str:
        return f"<Ticket {self.work} {self.state.value}, client {self.client!r}>"  # without `key`: it may hold a prompt


class Lane:
    """The waiting tickets that differ in nothing but their turn: of one class, client, owner, priority and bound."""

    __slots__ = ("account", "exclusive", "max_running", "overtakes", "owner", "priority", "tickets")

    def __init__(self, ticket: Ticket) -> None:
        self.account = ticket.account
        self.owner = ticket.owner or ticket.client
        self.priority = ticket.priority
        self.max_running = ticket.max_running
        self.exclusive = ticket.exclusive
        self.tickets: dict[int, Ticket] = {}  # by number: in order of arrival, and removed in one step
        self.overtakes = 0

    def oldest(self) -> Ticket:
        """The ticket that waited longest; a lane is never empty."""
        return next(iter(self.tickets.values()))

    def rank(self, now: float) -> tuple[int, float, int, int]:
        """Smaller goes first."""
        oldest = self.oldest()
        steps = int((now - oldest.arrived) / AGEING)
        return (
            -self.priority - steps,  # rule 3
            self.account.level,  # rule 4, and what follows
            self.account.running,
            oldest.number,
        )

    def choose(self, extends: Extends) -> Ticket:
        """Rule 5: the oldest ticket, or a younger one that extends what is resident."""
        oldest = self.oldest()
        if len(self.tickets) > 1 and self.overtakes < OVERTAKES:
            for ticket in islice(self.tickets.values(), LOOK):
                if ticket.key is not None and extends(ticket.key):
                    self.overtakes = 0 if ticket is oldest else self.overtakes + 1
                    return ticket
        self.overtakes = 0
        return oldest


LaneKey = tuple[str, str, int, int, bool]


def lane_key(ticket: Ticket) -> LaneKey:
    """What tickets of one lane have in common, within their class."""
    return (ticket.client, ticket.owner or ticket.client, ticket.priority, ticket.max_running, ticket.exclusive)


class Queue:
    """Who waits, who runs, and who is next. `capacity`: grants at once.

    `owners`: how many tickets run of each owner with a bound; several queues may have one count. `bounds`: what has
    become of the bound of an owner whose tickets may have come with another one.
    """

    def __init__(
        self, *, capacity: int, owners: dict[str, int] | None = None, bounds: Mapping[str, int] | None = None
    ) -> None:
        self.capacity = capacity
        self.open = True
        self.shares = Shares()
        self.lanes: dict[Work, dict[LaneKey, Lane]] = {"user": {}, "side": {}, "background": {}}
        self.waiting: dict[Work, list[int]] = {"user": [], "side": [], "background": []}  # numbers, by rule 2
        self.anyone = 0  # tickets that wait, of all classes
        self.running: set[Ticket] = set()
        self.owners: dict[str, int] = {} if owners is None else owners
        self.bounds: Mapping[str, int] = {} if bounds is None else bounds
        self.alone: Ticket | None = None  # the ticket that has the engine for itself
        self.unbegun: set[Ticket] = set()  # of those that run: wait to have it alone, and have sent nothing yet
        self.draining = False
        self.cut_serial = 0  # the newest grant when the last response was cut
        self.cut_at = 0.0
        self.arrivals = 0
        self.grants = 0
        self.measured: float | None = None  # seconds that a grant takes, the newest count most
        self.bias = 1.0  # what grants took lately, by what they should have taken: the machine has other work, too

    @property
    def user_waiting(self) -> bool:
        return bool(self.waiting["user"] or self.waiting["side"])

    def admit(self, ticket: Ticket, now: float) -> bool:
        """Grant a newcomer at once if nothing has to be decided: no ticket waits and there is room."""
        if self.anyone or ticket.max_running or not self.free() or (self.unbegun and self.held_back(now)):
            return False
        if ticket.exclusive and (self.running or self.draining):
            return False
        ticket.account = OURS if ticket.work == "background" else self.shares.account(ticket.client)
        self.take(ticket, now)
        return True

    def push(self, ticket: Ticket) -> None:
        self.arrivals += 1
        ticket.number = self.arrivals
        ticket.account = OURS if ticket.work == "background" else self.shares.account(ticket.client)
        ticket.account.waiting += 1
        lanes = self.lanes[ticket.work]
        key = lane_key(ticket)
        lane = lanes.get(key)
        if lane is None:
            lane = lanes[key] = Lane(ticket)
        lane.tickets[ticket.number] = ticket
        self.waiting[ticket.work].append(ticket.number)
        self.anyone += 1

    def remove(self, ticket: Ticket) -> bool:
        """Take a waiting ticket out for good; False if it does not wait (any more)."""
        if ticket.state is not State.WAITING or ticket.number == 0:
            return False
        self.leave(ticket)
        ticket.state = State.DONE
        return True

    def leave(self, ticket: Ticket) -> None:
        lanes = self.lanes[ticket.work]
        key = lane_key(ticket)
        del lanes[key].tickets[ticket.number]
        if not lanes[key].tickets:
            del lanes[key]
        ticket.account.waiting -= 1
        numbers = self.waiting[ticket.work]
        del numbers[bisect_left(numbers, ticket.number)]
        self.anyone -= 1

    def free(self) -> bool:
        """Rule 1: whether one more grant is possible at all."""
        return self.open and self.alone is None and len(self.running) < self.capacity

    def held_back(self, now: float) -> bool:
        """Whether newcomers wait, because somebody has waited to be alone; not while nobody can be."""
        return not self.draining and any(one.granted <= now - GRACE for one in self.unbegun)

    def pick(self, now: float, extends: Extends) -> Ticket | None:
        """Grant the next ticket, which is RUNNING when this returns; None if none may go now."""
        if not self.free() or (self.unbegun and self.held_back(now)):  # rule 1
            return None
        for work, lanes in self.classes(now):  # rule 2
            lane = self.next_lane(lanes, now, patience=PATIENCE[work])
            if lane is not None:
                if not self.fits(lane):
                    return None  # an exclusive ticket has waited long enough: it holds the others back
                ticket = lane.choose(extends)  # rule 5
                self.leave(ticket)
                self.take(ticket, now)
                return ticket
        return None

    def classes(self, now: float) -> Iterator[tuple[Work, list[Lane]]]:
        """The lanes to choose from, class by class: a side ticket that waited for a step is a user's from then on."""
        if not self.user_waiting:
            yield "background", list(self.lanes["background"].values())
            return
        side = list(self.lanes["side"].values())
        aged = [lane for lane in side if lane.oldest().arrived <= now - AGEING]
        yield "user", [*self.lanes["user"].values(), *aged]
        yield "side", side

    def next_lane(self, lanes: Iterable[Lane], now: float, *, patience: float) -> Lane | None:
        """The lane whose turn it is; one that does not fit only if its oldest ticket has lost its patience."""
        impatient = -math.inf if self.draining else now - patience  # while the engine drains
        found = [
            lane
            for lane in lanes
            if not self.full(lane.owner, lane.max_running) and (self.fits(lane) or lane.oldest().arrived <= impatient)
        ]
        return min(found, key=lambda lane: lane.rank(now), default=None)  # rules 3 and 4: `rank`

    def fits(self, lane: Lane) -> bool:
        """Whether this lane's tickets may go beside what runs: exclusive ones go alone."""
        return not lane.exclusive or not (self.running or self.draining)

    def full(self, owner: str, most: int) -> bool:
        """Whether an owner whose tickets came with the bound `most` (0: none) runs as much as it may."""
        most = self.bounds.get(owner, most) if most else 0
        return bool(most) and self.owners.get(owner, 0) >= most

    def crowd(self, ticket: Ticket) -> int:
        """How many tickets of clients wait, as far as they are in this one's way.

        What waits for its own owner's bound takes no other's place, and is its own crowd.
        """
        lanes = [*self.lanes["user"].values(), *self.lanes["side"].values()]
        owner = ticket.owner or ticket.client
        held = self.full(owner, ticket.max_running)
        return sum(
            len(lane.tickets)
            for lane in lanes
            if self.full(lane.owner, lane.max_running) == held and (not held or lane.owner == owner)
        )

    def take(self, ticket: Ticket, now: float) -> None:
        self.grants += 1
        ticket.serial = self.grants
        ticket.state = State.RUNNING
        ticket.granted = now
        ticket.account.running += 1
        self.running.add(ticket)
        if ticket.max_running:
            owner = ticket.owner or ticket.client
            self.owners[owner] = self.owners.get(owner, 0) + 1
        if ticket.exclusive:
            self.alone = ticket

    def release(
        self, ticket: Ticket, now: float, *, cut: bool = False, unsent: bool = False, computed: bool = True
    ) -> bool:
        """Take a grant back; False if it was given back before.

        `cut`: the engine's answer did not come to its end. `unsent`: the engine was never asked, so nothing is charged
        or measured, and nothing is known about whether it drained. `computed` False: it answered without a slot (an
        error, an unknown route), which says nothing about that either.
        """
        if ticket.state is not State.RUNNING:
            return False
        ticket.state = State.DONE
        ticket.account.running -= 1
        self.running.discard(ticket)
        if ticket.max_running:
            self.disown(ticket.owner or ticket.client)
        if self.alone is ticket:
            self.alone = None
        if unsent:
            return True
        if ticket.work != "background":  # ours is charged to no client and typical of nothing
            seconds = now - ticket.granted
            ticket.account.charge(seconds, now)
            before = seconds if self.measured is None else self.measured
            self.measured = before + SMOOTHING * (seconds - before)
            if ticket.needs and seconds and not cut:
                bias = self.bias ** (1 - BIAS) * (seconds / ticket.needs) ** BIAS
                self.bias = min(MOST_BIAS, max(1 / MOST_BIAS, bias))
        if cut or self.draining:
            self.note_end(ticket, now, cut=cut, computed=computed)
        return True

    def disown(self, owner: str) -> None:
        self.owners[owner] -= 1
        if not self.owners[owner]:
            del self.owners[owner]

    def note_end(self, ticket: Ticket, now: float, *, cut: bool, computed: bool) -> None:
        """Begin or end draining.

        With one slot, a later answer that ended proves that the earlier work was gone. With several it may have come
        from another slot, so the engine gets the time besides in which it surely looked for clients that left.
        """
        if cut:
            self.draining = True
            self.cut_serial = self.grants
            self.cut_at = now
        elif computed and ticket.serial > self.cut_serial:
            self.draining = self.capacity > 1 and now - self.cut_at < NOTICE

    def try_exclusive(self, ticket: Ticket) -> bool:
        """Give the engine to `ticket` alone if nothing else is at work in it, or may still be."""
        if ticket.state is not State.RUNNING or self.draining or self.alone not in {None, ticket}:
            return False
        if not self.running <= self.unbegun | {ticket}:
            return False
        self.alone = ticket
        return True

    def share(self, ticket: Ticket) -> bool:
        """Let others run beside `ticket` again; False if it was not alone."""
        if self.alone is not ticket:
            return False
        self.alone = None
        return True

    def tickets(self) -> list[Ticket]:
        """All waiting tickets: user, side, background; each class in order of arrival."""
        by_class = (
            chain.from_iterable(lane.tickets.values() for lane in lanes.values()) for lanes in self.lanes.values()
        )
        return [ticket for found in by_class for ticket in sorted(found, key=lambda ticket: ticket.number)]

    def position(self, ticket: Ticket) -> int:
        """How many tickets wait ahead of `ticket` by class and arrival (fairness may still change that)."""
        ahead = {
            "user": 0,
            "side": len(self.waiting["user"]),
            "background": self.anyone - len(self.waiting["background"]),
        }
        return ahead[ticket.work] + bisect_left(self.waiting[ticket.work], ticket.number)

    def oldest(self) -> Ticket | None:
        """The ticket that has waited longest."""
        lanes = chain.from_iterable(lanes.values() for lanes in self.lanes.values())
        return min((lane.oldest() for lane in lanes), key=lambda ticket: ticket.number, default=None)

    def held_up(self) -> Ticket | None:
        """The one that has waited longest of clients' tickets that wait for the engine, not for others of their key."""
        lanes = chain(self.lanes["user"].values(), self.lanes["side"].values())
        found = (lane.oldest() for lane in lanes if not self.full(lane.owner, lane.max_running))
        return min(found, key=lambda ticket: ticket.number, default=None)

    def __repr__(self) -> str:
        waiting = ", ".join(f"{len(numbers)} {work}" for work, numbers in self.waiting.items() if numbers)
        alone = ", one alone" if self.alone is not None else ""
        return f"<Queue {len(self.running)} of {self.capacity} run{alone}, waiting: {waiting or 'none'}>"
