"""How long still: from what runs and what waits, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.gate.forecast import forecast, rest, starts, usual
from bioproxy.gate.queue import Queue, Ticket

SECONDS = st.floats(0, 1000)


def queue(*, running: int, waiting: int, capacity: int, took: float) -> tuple[Queue, list[Ticket]]:
    """One whose grants took so many seconds before, what runs since 0, and what waits."""
    one = Queue(capacity=capacity)
    first = Ticket(arrived=-took)
    assert one.admit(first, -took)
    one.release(first, 0.0)
    tickets = [Ticket(client=str(number)) for number in range(running + waiting)]
    for ticket in tickets:
        if not one.admit(ticket, 0.0):
            one.push(ticket)
    return one, tickets[running:]


def test_the_slots_are_taken_in_turn() -> None:
    """With grants of four seconds on two slots, the third in the queue begins after eight, the fifth after twelve."""
    one, waiting = queue(running=2, waiting=5, capacity=2, took=4.0)
    seen = forecast(one, 0.0, usual(one))
    assert [seen.starts[ticket.number] for ticket in waiting] == [4.0, 4.0, 8.0, 8.0, 12.0]
    assert (seen.newcomer, seen.drained) == (12.0, 16.0)


def test_each_counts_by_what_it_needs() -> None:
    """A long prompt ahead is a long wait, a short one is none."""
    one, waiting = queue(running=1, waiting=2, capacity=1, took=1.0)
    needs = {waiting[0]: 30.0, waiting[1]: 2.0}
    seen = forecast(one, 0.0, lambda ticket, _now: needs.get(ticket, 5.0))
    assert [seen.starts[ticket.number] for ticket in waiting] == [5.0, 35.0]
    assert seen.newcomer == 37.0


def test_an_idle_engine_keeps_nobody_waiting() -> None:
    """Whatever its capacity."""
    one = Queue(capacity=1_000_000)
    assert forecast(one, 5.0, usual(one)).newcomer == 0.0


def test_of_more_than_fit_the_first_to_end_make_no_room() -> None:
    """An engine that lost slots finishes what runs."""
    assert starts([1.0, 2.0, 9.0], [1.0], capacity=1) == [9.0, 10.0]


@pytest.mark.parametrize(("elapsed", "left"), [(0, 8), (4, 4), (6, 2), (8, 2), (10, 4), (68, 62)])
def test_what_takes_longer_goes_on(elapsed: float, left: float) -> None:
    """Nobody is told one second while the only slot has been busy for a minute."""
    assert rest(8.0, elapsed) == left


@given(running=st.lists(SECONDS, max_size=5), waiting=st.lists(SECONDS, max_size=20), capacity=st.integers(1, 6))
def test_nobody_begins_before_who_came_first(running: list[float], waiting: list[float], capacity: int) -> None:
    """And nobody later than if all had one slot."""
    found = starts(running, waiting, capacity=capacity)
    assert found == sorted(found)
    assert len(found) == len(waiting) + 1
    assert found[-1] <= sum(running) + sum(waiting) + 1e-6


def test_a_forecast_learns_by_how_much_it_errs() -> None:
    """The machine may have other work: what grants took, by what they should have taken, corrects the next ones."""
    one, waiting = queue(running=1, waiting=20, capacity=1, took=1.0)
    now = 0.0
    for ticket in [*one.running, *waiting]:
        forecast(one, now, lambda _ticket, _now: 5.0)
        now += 10.0
        one.release(ticket, now)
        one.pick(now, lambda _key: False)
    assert one.bias == pytest.approx(2.0, rel=0.1)
