"""Whatever order things happen in: the promises that the gate's queue keeps, checked by a machine that tries orders."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from bioproxy.activity import Work
from bioproxy.gate.queue import Queue, State, Ticket

works = st.sampled_from(["user", "side", "background"])


class QueueMachine(RuleBasedStateMachine):
    """Arrivals, departures, ends, cuts, slot actions, resizes and the passing of time, in any order."""

    tickets: Any = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.everyone: list[Ticket] = []
        self.granted: Counter[Ticket] = Counter()

    @initialize(capacity=st.integers(1, 3))
    def begin(self, capacity: int) -> None:
        """An engine with one to three slots."""
        self.queue = Queue(capacity=capacity)

    @rule(
        target=tickets,
        work=works,
        client=st.sampled_from("abc"),
        priority=st.integers(0, 2),
        bound=st.sampled_from([0, 0, 1, 2]),
        exclusive=st.sampled_from([False, False, False, True]),
    )
    def arrive(self, work: Work, client: str, priority: int, bound: int, *, exclusive: bool) -> Ticket:
        """A newcomer: granted at once, or it waits and whoever may go is granted."""
        owner = f"{client}{bound}"
        ticket = Ticket(
            work=work, client=client, owner=owner, priority=priority, max_running=bound, exclusive=exclusive,
            key=client, arrived=self.now,
        )  # fmt: skip
        self.everyone.append(ticket)
        if self.queue.admit(ticket, self.now):
            self.granted[ticket] += 1
        else:
            self.queue.push(ticket)
            self.dispatch()
        return ticket

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: Ticket) -> None:
        """A client leaves, whether its ticket waits, runs or is done."""
        waited = ticket.state is State.WAITING
        assert self.queue.remove(ticket) == waited
        assert not self.queue.remove(ticket)
        if not waited:
            self.queue.release(ticket, self.now, unsent=True)
        self.dispatch()

    @rule(ticket=tickets, cut=st.booleans())
    def end(self, ticket: Ticket, *, cut: bool) -> None:
        """An answer ends or is cut; the second time nothing happens."""
        ran = ticket.state is State.RUNNING
        assert self.queue.release(ticket, self.now, cut=cut) == ran
        assert not self.queue.release(ticket, self.now)
        assert self.queue.draining or not (ran and cut)
        self.dispatch()

    @rule(ticket=tickets)
    def ask_to_be_alone(self, ticket: Ticket) -> None:
        """Any ticket may ask; the answer is yes exactly when nothing else runs or drains."""
        possible = self.queue.running == {ticket} and not self.queue.draining
        assert self.queue.try_exclusive(ticket) == possible

    @rule(ticket=tickets)
    def let_others_in(self, ticket: Ticket) -> None:
        """Being alone ends; for one that was not, nothing happens."""
        self.queue.share(ticket)
        self.dispatch()

    @rule(capacity=st.integers(1, 4))
    def resize(self, capacity: int) -> None:
        """The engine comes back with another number of slots."""
        self.queue.capacity = capacity
        self.dispatch()

    @rule(is_open=st.booleans())
    def open_or_close(self, *, is_open: bool) -> None:
        """The engine comes and goes."""
        self.queue.open = is_open
        self.dispatch()

    @rule()
    def settle(self) -> None:
        """Somebody saw the slots idle."""
        self.queue.draining = False
        self.dispatch()

    @rule(seconds=st.sampled_from([0.5, 3.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        """Seconds or more than an ageing step go by."""
        self.now += seconds
        self.dispatch()

    def dispatch(self) -> None:
        """Grant as the gate does, and judge each grant by the rules."""
        while True:
            clients_waited = self.queue.user_waiting
            draining, running = self.queue.draining, set(self.queue.running)
            ticket = self.queue.pick(self.now, lambda key: key == "a")
            if ticket is None:
                return
            self.granted[ticket] += 1
            assert self.queue.open
            assert len(self.queue.running) <= self.queue.capacity
            assert ticket.work != "background" or not clients_waited
            assert not ticket.exclusive or (not running and not draining)

    @invariant()
    def nobody_is_lost_or_granted_twice(self) -> None:
        """Each ticket is where its state says, and was granted once at most."""
        waiting = [t for t in self.everyone if t.state is State.WAITING]
        assert sorted(self.queue.tickets(), key=id) == sorted(waiting, key=id)
        assert self.queue.running == {t for t in self.everyone if t.state is State.RUNNING}
        assert all(count == 1 for count in self.granted.values())

    @invariant()
    def counts_agree_with_what_is_there(self) -> None:
        """What is counted on the way is what a count from scratch gives."""
        waiting = Counter(t.work for t in self.everyone if t.state is State.WAITING)
        assert {work: len(numbers) for work, numbers in self.queue.waiting.items() if numbers} == dict(waiting)
        found = self.queue.tickets()
        assert [self.queue.position(ticket) for ticket in found] == list(range(len(found)))
        assert self.queue.oldest() is min(found, key=lambda ticket: ticket.number, default=None)
        assert self.queue.anyone == sum(waiting.values())
        for account in self.queue.shares.accounts.values():
            mine = [t for t in self.everyone if t.client == account.client and t.work != "background"]
            assert account.running == sum(t.state is State.RUNNING for t in mine)
            assert account.waiting == sum(t.state is State.WAITING for t in mine)

    @invariant()
    def alone_means_alone(self) -> None:
        """Whoever has the engine alone is all that runs."""
        assert self.queue.alone is None or self.queue.running == {self.queue.alone}

    @invariant()
    def no_owner_runs_more_than_its_bound(self) -> None:
        """`max_running` holds at every moment."""
        owners = Counter(t.owner for t in self.queue.running if t.max_running)
        assert owners == Counter(self.queue.owners)
        assert all(owners[t.owner] <= t.max_running for t in self.queue.running if t.max_running)

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        """While there is room, only bounds, exclusive turns and rule 2 keep anyone waiting."""
        if not self.queue.free():
            return
        candidates = [t for t in self.queue.tickets() if t.work != "background" or not self.queue.user_waiting]
        bounded = {t.owner for t in candidates if t.max_running and self.queue.owners.get(t.owner, 0) >= t.max_running}
        held = [t for t in candidates if t.exclusive and t.owner not in bounded]
        plain = [t for t in candidates if not t.exclusive and t.owner not in bounded]
        assert not plain or any(self.now - t.arrived >= 60.0 and t.work != "background" for t in held)
        assert not held or self.queue.running or self.queue.draining


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
