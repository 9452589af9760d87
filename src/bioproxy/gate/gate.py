"""The async front of the gate: turns the queue's decisions into woken tasks, timers and errors.

`acquire` on a free engine does no more than count: no future, no timer, no task switch, for it stands in the way of
every request. Only a request that really waits gets a future. A waiter is woken by a *decision that is already made*:
its ticket runs before its task does. So a cancellation finds the ticket either waiting (it is taken out) or running (it
is given back), and there is no third case; that is what `wait` has one `except BaseException` for.

What does not live here: who goes first (queue.py), what a client is told in which dialect (front/), and what is done
under a grant.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from types import TracebackType
from typing import Self
from weakref import WeakSet

import msgspec

from bioproxy.activity import Work
from bioproxy.config.settings import Settings
from bioproxy.errors import BioproxyError, QueueFull, QueueTimeout
from bioproxy.gate.forecast import FRESH, LONGEST_RETRY, Cost, Forecast, forecast, usual
from bioproxy.gate.queue import Queue, State, Ticket
from bioproxy.templates.bodies import Body
from bioproxy.wire.relay import Tail

log = logging.getLogger(__name__)

MOST_ASIDE = 60.0  # seconds that a side request lets others go first, however busy the engine is
LOOK_AGAIN = 1.0  # seconds between two looks whether an engine that was stopped is there again
STILL_COUNTS = 0.01  # engine seconds below which an idle client is not worth a line


class ClientStatistics(msgspec.Struct, frozen=True):
    """One client's share: engine seconds that still count, and how many of its tickets run and wait."""

    client: str
    used: float
    running: int
    waiting: int


class GateStatistics(msgspec.Struct, kw_only=True):
    """The gate at one moment. Times are seconds; `waiting` and `running` are counts by class; totals since start."""

    capacity: int = 1
    limit: int = 0
    open: bool = True
    reason: str = ""  # why it is closed
    exclusive: bool = False
    draining: bool = False
    running: dict[Work, int] = {}
    waiting: dict[Work, int] = {}
    aside: int = 0  # side requests that wait for a quiet moment, before they wait in the queue
    oldest_wait: float = 0.0
    held_up: float = 0.0  # the same of clients' requests, without those that wait for others of their key (max_running)
    estimate: float = 0.0  # until a newcomer of class user would be granted
    measured: float | None = None  # how long a grant takes
    idle: float = 0.0
    granted: int = 0
    refused: int = 0
    timed_out: int = 0
    left: int = 0
    clients: tuple[ClientStatistics, ...] = ()  # those that run, wait or used something that still counts


class Aside(msgspec.Struct, frozen=True):
    """A side request that lets others go first: whose it is, and since when."""

    conversation: str
    since: float


class Grant(msgspec.Struct, eq=False):
    """The right to use the engine, until `release`. As a context manager an exception means that the answer was cut.

    `waited`: seconds in the queue.
    """

    gate: Gate
    ticket: Ticket
    waited: float = 0.0

    @property
    def exclusive(self) -> bool:
        return self.gate.queue.alone is self.ticket

    def try_exclusive(self) -> bool:
        """Have the engine alone from now on; False if something else runs or may still run inside it."""
        return self.gate.queue.try_exclusive(self.ticket)

    def share(self) -> None:
        """Let others in again; this grant stays."""
        if self.gate.queue.share(self.ticket):
            self.gate.dispatch()

    def renew(self) -> bool:
        """Give the engine back and have it again, for work in chunks; False, and nothing happened, if somebody waits.

        A grant that was exclusive is not any more.
        """
        queue, ticket, now = self.gate.queue, self.ticket, self.gate.clock()
        full = len(queue.running) > queue.capacity
        if (
            self.gate.error is not None
            or queue.anyone
            or not queue.open
            or full
            or (queue.unbegun and queue.held_back(now))
        ):
            return False
        new = Ticket(work=ticket.work, client=ticket.client, priority=ticket.priority, key=ticket.key, arrived=now)
        queue.release(ticket, now)
        queue.admit(new, now)
        self.ticket = new
        return True

    @asynccontextmanager
    async def alone(self, *, wait: float = 0.0) -> AsyncIterator[bool]:
        """Have the engine alone inside, if that is possible now or within `wait` seconds; then let others in again.

        A grant that was exclusive before stays so.
        """
        if self.exclusive:
            yield True
            return
        found = self.try_exclusive() or (wait > 0 and await self.wait_exclusive(wait))
        try:
            yield found
        finally:
            if found:
                self.share()

    async def wait_exclusive(self, seconds: float) -> bool:
        """Have the engine alone as soon as it can be; False if that is not within `seconds`."""
        unbegun = self.gate.queue.unbegun
        unbegun.add(self.ticket)
        try:
            async with asyncio.timeout(seconds):
                while not self.try_exclusive():
                    self.gate.returned.clear()
                    await self.gate.returned.wait()
        except TimeoutError:
            return False
        finally:
            unbegun.discard(self.ticket)
        return True

    def release(self, *, cut: bool = False, unsent: bool = False, computed: bool = True) -> None:
        """Give the engine back and let the gate decide who is next; a second call does nothing.

        `cut`: the response did not come to its end, so the engine may still be at it. `unsent`: nothing was ever sent.
        `computed` False: the answer did not come out of a slot, so earlier work may still be in there.
        """
        gate, queue, now = self.gate, self.gate.queue, self.gate.clock()
        if not queue.release(self.ticket, now, cut=cut, unsent=unsent, computed=computed):
            return
        if self.ticket.work == "user":
            gate.used_at = now
            if gate.aside and not cut and not unsent:
                gate.answered(self.ticket)
        if cut:
            gate.cuts += 1
            if queue.draining:
                gate.drains.set()
        gate.returned.set()
        if queue.anyone:
            gate.dispatch()
        if self.ticket.max_running:
            gate.owners.freed(gate)
        if not queue.running and not queue.anyone:
            gate.idle_since = gate.clock()
            gate.quiet.set()

    def __repr__(self) -> str:
        return f"<Grant of {self.ticket}{', alone' if self.exclusive else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(cut=kind is not None)


class Owners:
    """How many requests run of each owner with a bound (`max_running`), in all gates that share it."""

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.bounds: dict[str, int] = {}
        self.gates: WeakSet[Gate] = WeakSet()

    def bind(self, bounds: Mapping[str, int]) -> None:
        """From now on these are the bounds (0: none), also for requests that wait already, if they had one."""
        self.bounds.clear()
        self.bounds.update(bounds)
        for gate in self.gates:
            if gate.queue.anyone:
                gate.dispatch()

    def freed(self, gate: Gate) -> None:
        """A request of such an owner ended in `gate`: another one may go in another gate."""
        for other in self.gates:
            if other is not gate and other.queue.anyone:
                other.dispatch()


class Gate:
    """Hands out grants, `capacity` at once; `queue_limit` and `queue_timeout` are read when they count.

    It begins open. `extends` is set by the station: whether a ticket's key extends what the engine holds. `owners` may
    be those of other gates as well.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        capacity: int = 1,
        clock: Callable[[], float] = time.monotonic,
        owners: Owners | None = None,
    ) -> None:
        self.settings = settings
        self.owners = Owners() if owners is None else owners
        self.owners.gates.add(self)
        self.queue = Queue(capacity=max(1, capacity), owners=self.owners.running, bounds=self.owners.bounds)
        self.clock = clock
        self.extends: Callable[[object], bool] = lambda _key: False
        self.reason = ""
        self.error: BioproxyError | None = None
        self.waiters: dict[Ticket, asyncio.Future[BioproxyError | None]] = {}
        self.idle_since = clock()
        self.returned = asyncio.Event()  # a grant came back, or the engine was seen idle
        self.quiet = asyncio.Event()  # nothing runs and no ticket waits
        self.drains = asyncio.Event()  # an answer was cut off
        self.cuts = 0
        self.used_at = -math.inf  # when the last request of class user ended
        self.aside: dict[asyncio.Future[None], Aside] = {}  # side requests that let others go first
        self.counts = GateStatistics()
        self.cost: Cost | None = None  # what a ticket needs, if somebody knows; the station sets it
        self.seen, self.seen_in = Forecast(-math.inf), (0, 0, 0)

    async def acquire(
        self,
        *,
        work: Work = "user",
        client: str = "",
        conversation: str = "",
        priority: int = 0,
        key: object = None,
        max_running: int = 0,
        owner: str = "",
        exclusive: bool = False,
        last: bool = False,
        body: Body | None = None,
        tail: Tail | None = None,
    ) -> Grant:
        """Wait for the engine. Raises QueueFull (too many wait), QueueTimeout, or what `refuse` was given.

        `client` is whom fairness charges; `conversation` is what side requests look for that step aside; `owner`
        (default: the client) whose `max_running` bounds what runs at once; `exclusive`: granted only when nothing else
        runs; `last`: also after `refuse` (the shutdown's own save); `body` and `tail` tell how long it may take.
        Cancelling the caller leaves the queue at once.
        """
        now = self.clock()
        ticket = Ticket(
            work=work, client=client, conversation=conversation, owner=owner, priority=priority,
            key=key, max_running=max_running, exclusive=exclusive, arrived=now, body=body, tail=tail,
        )  # fmt: skip
        if self.error is not None and not last:
            self.counts.refused += 1
            raise copy(self.error)  # each with frames of its own, which it keeps
        if self.queue.admit(ticket, now):
            return Grant(self, ticket)
        self.enqueue(ticket)
        if ticket.state is State.RUNNING:
            return Grant(self, ticket)
        return await self.wait(ticket)

    async def step_aside(self, conversation: str) -> None:
        """Let a side request wait until it is in no user's way; what it asks for then waits its turn as any other.

        That is once no request of class user has used the engine for `clients.side_wait`, or the next turn of its
        conversation was answered, or after a minute: no request starves here. If the engine was stopped after somebody
        had used it, it waits until somebody has it started again, and is not the one who does: QueueTimeout if nobody
        does within `queue_timeout`. Cancelling the caller is safe.
        """
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.aside[answered] = one = Aside(conversation, self.clock())
        try:
            while (left := self.stays_aside(one, answered=answered.done())) > 0:
                await asyncio.wait((answered,), timeout=left)
        finally:
            del self.aside[answered]

    def stays_aside(self, one: Aside, *, answered: bool) -> float:
        """Seconds until it is worth another look whether a side request may go; none if it may."""
        waited = self.clock() - one.since
        if self.error is not None:
            return 0.0
        if not self.queue.open and self.used_at > one.since - MOST_ASIDE:
            timeout = self.settings.config.queue_timeout
            if waited >= timeout:
                said = f"its engine was stopped, and no other request had it started within {timeout:.0f} s"
                raise QueueTimeout(f"{said} (queue_timeout): a side request does not", retry_after=60)
            return min(LOOK_AGAIN, timeout - waited)
        return 0.0 if answered else min(MOST_ASIDE - waited, self.quiet_in())

    def quiet_in(self) -> float:
        """Seconds until no request of class user has used the engine for `clients.side_wait`, if none comes."""
        wanted = self.settings.config.clients.side_wait
        if self.queue.waiting["user"] or any(ticket.work == "user" for ticket in self.queue.running):
            return wanted
        return self.used_at + wanted - self.clock()

    def answered(self, ticket: Ticket) -> None:
        """A user's turn was answered: side requests that came before it and belong to its conversation may go."""
        for waiter, one in self.aside.items():
            if one.conversation == ticket.conversation and one.since <= ticket.arrived and not waiter.done():
                waiter.set_result(None)

    def enqueue(self, ticket: Ticket) -> None:
        """Put `ticket` into the queue and decide; it may run when this returns."""
        self.queue.push(ticket)
        self.dispatch()
        clients = self.queue.anyone - len(self.queue.waiting["background"])
        limit = self.settings.config.queue_limit
        if ticket.work == "background" or clients <= limit or ticket.state is not State.WAITING:
            return
        if self.queue.crowd(ticket) > limit and self.queue.remove(ticket):
            self.counts.refused += 1
            retry = self.retry_after()
            waiting = counted(limit, "request waits", "requests wait")
            message = f"{waiting} for the engine already (queue_limit); try again in {retry} s"
            raise QueueFull(message, retry_after=retry)

    async def wait(self, ticket: Ticket) -> Grant:
        """Sleep until `ticket` runs, is refused or times out; a cancellation gives back what it had."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[BioproxyError | None] = loop.create_future()
        self.waiters[ticket] = waiter
        timeout = self.settings.config.queue_timeout  # a reload changes it only for those that come later
        timer = None if ticket.work == "background" else loop.call_later(timeout, self.expire, ticket, timeout)
        try:
            error = await waiter
        except BaseException:
            self.withdraw(ticket)
            raise
        finally:
            del self.waiters[ticket]
            if timer is not None:
                timer.cancel()
        if error is not None:
            raise copy(error)
        return Grant(self, ticket, ticket.granted - ticket.arrived)

    def withdraw(self, ticket: Ticket) -> None:
        """Its task was cancelled: out of the queue, or back with the grant that the task never saw."""
        self.counts.left += 1
        if self.queue.remove(ticket):
            self.moved_on()
        else:
            Grant(self, ticket).release(unsent=True)

    def expire(self, ticket: Ticket, timeout: float) -> None:
        """Time is up for `ticket`, if it still waits."""
        if ticket.state is State.WAITING and not self.waiters[ticket].done():
            ahead = self.queue.position(ticket)
            retry = self.retry_after(ticket)
            cause = counted(ahead, "request was ahead", "requests were ahead") if ahead else "it was next"
            if not self.queue.open:
                cause = f"it is not ready: {self.reason}"
            message = f"waited {timeout:.0f} s (queue_timeout) for the engine; {cause}; try again in {retry} s"
            self.counts.timed_out += 1
            self.turn_away(ticket, QueueTimeout(message, retry_after=retry))
            self.moved_on()

    def turn_away(self, ticket: Ticket, error: BioproxyError) -> None:
        """Take `ticket` out and let its task raise `error`."""
        self.queue.remove(ticket)
        waiter = self.waiters.get(ticket)
        if waiter is not None and not waiter.done():
            waiter.set_result(error)

    def retry_after(self, ticket: Ticket | None = None) -> int:
        """Whole seconds after which trying again makes sense: when a newcomer would be granted, or this ticket."""
        return max(1, math.ceil(min(self.until(ticket), LONGEST_RETRY)))

    def until(self, ticket: Ticket | None = None) -> float:
        """Seconds until a ticket that waits will be granted, or a newcomer."""
        seen = self.seen
        if ticket is None or ticket.number not in seen.starts or not self.fresh:  # of those that give up together
            seen = self.forecast()
        at = seen.newcomer if ticket is None else seen.starts.get(ticket.number, seen.newcomer)
        return max(0.0, at - (self.clock() - seen.at))

    def standing(self, tail: Tail) -> tuple[int, float]:
        """The place of a request by its tail, and the seconds until it will be granted; 0, 0 if it does not wait."""
        seen = self.forecast()
        place, number = seen.places.get(id(tail), (0, 0))
        return place, max(0.0, seen.starts[number] - (self.clock() - seen.at)) if place else 0.0

    def forecast(self) -> Forecast:
        """How long still, for all that wait; worked out for all at once, and not for each who asks."""
        queue = self.queue
        state = queue.anyone, queue.grants, len(queue.running)
        if state != self.seen_in or not self.fresh:
            self.seen, self.seen_in = forecast(queue, self.clock(), self.cost or usual(queue)), state
        return self.seen

    @property
    def fresh(self) -> bool:
        """Whether the last forecast is so new that it holds for whoever is in it."""
        return 0.0 <= self.clock() - self.seen.at < FRESH

    def moved_on(self) -> None:
        """A ticket left the queue: grant what can be granted, notice when all is quiet."""
        self.dispatch()
        if self.idle:
            self.idle_since = self.clock()
            self.quiet.set()

    def dispatch(self) -> None:
        """Grant tickets as long as any may go. A waiter that was cancelled meanwhile gives its grant back itself."""
        while (ticket := self.queue.pick(self.clock(), self.asks)) is not None:
            waiter = self.waiters.get(ticket)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def asks(self, key: object) -> bool:
        """`extends`, guarded: a fault in it must not break the grant of another request."""
        try:
            return self.extends(key)
        except Exception:
            log.exception("could not tell whether a request extends what is resident; taken for no")
            return False

    def resize(self, capacity: int) -> None:
        """The engine has `capacity` slots now; what runs beyond it runs on."""
        self.queue.capacity = max(1, capacity)
        self.dispatch()

    def open(self) -> None:
        """The engine is ready: grant."""
        self.queue.open = True
        self.reason = ""
        self.dispatch()

    def close(self, reason: str) -> None:
        """The engine is not ready: all requests wait; those whose time runs out are told `reason`."""
        self.queue.open = False
        self.reason = reason

    def refuse(self, error: BioproxyError) -> None:
        """From now on all requests that wait or come get `error`; what runs runs on. For the shutdown, or a pause."""
        self.error = error
        for aside in self.aside:
            if not aside.done():
                aside.set_result(None)
        for ticket in self.queue.tickets():
            self.counts.refused += 1
            self.turn_away(ticket, error)
        self.moved_on()

    def accept(self) -> None:
        """Take requests again after `refuse`."""
        self.error = None

    @property
    def user_waiting(self) -> bool:
        """Whether a client waits (user or side): background work gives way at its next chunk."""
        return self.queue.user_waiting

    @property
    def draining(self) -> bool:
        """Whether the engine may still be at a request whose client left."""
        return self.queue.draining

    @property
    def running(self) -> int:
        return len(self.queue.running)

    @property
    def at_work(self) -> int:
        """How many of those that run may have sent the engine anything."""
        return len(self.queue.running - self.queue.unbegun)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and no ticket waits."""
        return not self.queue.running and not self.queue.anyone

    def idle_seconds(self) -> float:
        """For how long it has been idle; 0 if it is not."""
        return self.clock() - self.idle_since if self.idle else 0.0

    def settled(self) -> None:
        """All slots of the engine were seen idle, or the engine is a new one: it is not draining."""
        self.queue.draining = False
        self.returned.set()
        self.dispatch()

    async def wait_idle(self, seconds: float) -> None:
        """Return as soon as nothing has run or waited for `seconds`."""
        while True:
            if not self.idle:
                self.quiet.clear()
                await self.quiet.wait()
            elif (left := seconds - self.idle_seconds()) > 0:
                await asyncio.sleep(left)  # a grant in between moves `idle_since`, and the rest is waited for again
            else:
                return

    async def wait_for_end(self, work: Work, seconds: float) -> None:
        """Return as soon as no work of this class runs, at the latest after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(ticket.work == work for ticket in self.queue.running):
                    self.returned.clear()
                    await self.returned.wait()

    async def wait_draining(self) -> None:
        """Return as soon as the engine drains: the time to look at its slots now and then and call `settled`."""
        if not self.queue.draining:
            self.drains.clear()
            await self.drains.wait()

    def statistics(self) -> GateStatistics:
        queue, now = self.queue, self.clock()
        oldest, held_up = queue.oldest(), queue.held_up()
        return msgspec.structs.replace(
            self.counts,
            capacity=queue.capacity,
            limit=self.settings.config.queue_limit,
            open=queue.open,
            reason=self.reason,
            exclusive=queue.alone is not None,
            draining=queue.draining,
            running={work: sum(ticket.work == work for ticket in queue.running) for work in queue.waiting},
            waiting={work: len(numbers) for work, numbers in queue.waiting.items()},
            aside=len(self.aside),
            oldest_wait=now - oldest.arrived if oldest is not None else 0.0,
            held_up=now - held_up.arrived if held_up is not None else 0.0,
            estimate=0.0 if queue.free() and not queue.anyone else self.until(),
            measured=queue.measured,
            idle=self.idle_seconds(),
            granted=queue.grants,
            clients=self.clients(now),
        )

    def clients(self, now: float) -> tuple[ClientStatistics, ...]:
        """Clients that run, wait or used something that still counts; the one that used most first."""
        accounts = sorted(self.queue.shares.accounts.values(), key=lambda account: account.level, reverse=True)
        return tuple(
            ClientStatistics(account.client, round(account.used(now), 3), account.running, account.waiting)
            for account in accounts
            if account.running or account.waiting or account.used(now) >= STILL_COUNTS
        )

    def __repr__(self) -> str:
        queue = self.queue
        state = ("open" if queue.open else f"closed ({self.reason})") + (", draining" if queue.draining else "")
        return f"<Gate {state}, {len(queue.running)} of {queue.capacity} run, {queue.anyone} wait>"


def counted(number: int, one: str, many: str) -> str:
    """`1 request waits`, `2 requests wait`."""
    return f"{number} {one if number == 1 else many}"
