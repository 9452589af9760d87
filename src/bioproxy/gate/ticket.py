"""A ticket, its life, and the lanes in which tickets of a kind wait; pure values, used by queue.py alone.

A lane exists so that a decision looks at clients, not at tickets: a thousand requests of one client are one lane, whose
oldest ticket speaks for all, and taking any of them out (a client left) is one step.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import islice

from bioproxy.activity import Work
from bioproxy.gate.fairness import Account

AGEING = 60.0  # seconds of waiting that count as one step of priority
OVERTAKES = 3  # in a row, by tickets that extend what is resident
LOOK = 64  # tickets of one client that are asked whether they extend it

Extends = Callable[[object], bool]


class State(Enum):
    """The life of a ticket; only forwards."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Ticket:
    """One request's place in the gate.

    `owner` is whose `max_running` counts (0: no bound); `key` is what `extends` is asked about; `arrived` and
    `granted` are seconds of the gate's clock.
    """

    __slots__ = (
        "account", "arrived", "client", "exclusive", "granted", "key",
        "max_running", "number", "owner", "priority", "serial", "state", "work",
    )  # fmt: skip

    account: Account

    def __init__(
        self,
        *,
        work: Work = "user",
        client: str = "",
        owner: str = "",
        priority: int = 0,
        key: object = None,
        max_running: int = 0,
        exclusive: bool = False,
        arrived: float = 0.0,
    ) -> None:
        self.work = work
        self.client = client
        self.owner = owner or client
        self.priority = priority
        self.key = key
        self.max_running = max_running
        self.exclusive = exclusive
        self.arrived = arrived
        self.granted = 0.0
        self.number = 0  # order of arrival among those that had to wait
        self.serial = 0  # order of granting
        self.state = State.WAITING


class Lane:
    """The waiting tickets that differ in nothing but their turn: same class, client, owner, priority and bounds."""

    __slots__ = ("account", "exclusive", "max_running", "overtakes", "owner", "priority", "tickets")

    def __init__(self, ticket: Ticket) -> None:
        self.account = ticket.account
        self.owner = ticket.owner
        self.priority = ticket.priority
        self.max_running = ticket.max_running
        self.exclusive = ticket.exclusive
        self.tickets: dict[int, Ticket] = {}  # by number: in order of arrival, and removed in one step
        self.overtakes = 0

    def oldest(self) -> Ticket:
        """The ticket that waited longest; a lane is never empty."""
        return next(iter(self.tickets.values()))

    def rank(self, now: float) -> tuple[int, float, int, int]:
        """Smaller goes first: aged priority, fairness, less running, order of arrival."""
        oldest = self.oldest()
        steps = int((now - oldest.arrived) / AGEING)
        return (-self.priority - steps, self.account.level, self.account.running, oldest.number)

    def choose(self, extends: Extends) -> Ticket:
        """The oldest ticket, or a younger one that extends what is resident, three times in a row at most."""
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
    return (ticket.client, ticket.owner, ticket.priority, ticket.max_running, ticket.exclusive)
