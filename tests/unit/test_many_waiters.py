"""With two thousand requests that wait, what a decision costs: counted in calls, so that no clock decides.

Twice as many waiters may cost twice as many calls, or none more at all; what is quadratic costs four times as many.
"""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from bioproxy.aio import spawn
from bioproxy.errors import QueueTimeout
from bioproxy.gate import Gate
from bioproxy.gate.queue import Queue, Ticket
from bioproxy.models.book import ModelSettings
from bioproxy.models.groups import Groups
from bioproxy.models.schedule import Schedule
from bioproxy.models.wish import Wish
from support.config_files import settings
from support.steps import calls

MANY = 2000


def bounded(waiting: int) -> Queue:
    """One key with a bound of one, whose users wait: each of them is a lane of its own."""
    queue = Queue(capacity=4)
    for number in range(waiting + 1):
        ticket = Ticket(client=f"user {number}", owner="key", max_running=1)
        queue.push(ticket)
        if not number:
            queue.pick(0.0, lambda _key: False)
    return queue


@pytest.mark.parametrize("runs", [True, False], ids=["its bound is reached", "one may go"])
def test_a_decision_among_many_users_of_one_key_looks_at_each_once(*, runs: bool) -> None:
    """A key's users at its bound cost one look each per decision, not a search among all for each of them."""

    def decide(waiting: int) -> int:
        queue = bounded(waiting)
        if not runs:
            queue.release(next(iter(queue.running)), 1.0)
        return calls(lambda: queue.pick(1.0, lambda _key: False))

    assert decide(MANY) < 2.1 * decide(MANY // 2)
    assert decide(MANY) < 6 * MANY


async def test_requests_that_time_out_together_cost_the_same_each() -> None:
    """A thousand that came together are told together, without a sort of all of them for each one."""

    async def expire(count: int) -> int:
        gate = Gate(settings(queue_limit=MANY, queue_timeout=60.0))
        gate.close("the engine is loading")
        waiters = [spawn(gate.acquire(client=str(number % 10)), name="waiter") for number in range(count)]
        await asyncio.sleep(0)
        tickets = gate.queue.tickets()
        found = calls(lambda: list(map(partial(gate.expire, timeout=60.0), tickets)))
        ends = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(end, QueueTimeout) for end in ends)
        return found

    assert await expire(MANY) < 2.1 * await expire(MANY // 2)


def crowd(waiting: int) -> Schedule:
    """Two models that cannot run together; `a` is in use, and many wait for `b`."""
    models = [ModelSettings(id=name) for name in "ab"]
    schedule = Schedule(models, rules=Groups({}), now=0.0, settings=settings(queue_limit=0))
    schedule.request(Wish("a"), 0.0)
    schedule.ready("a", 1, 1.0)
    for _ in range(waiting):
        schedule.request(Wish("b"), 2.0)
    return schedule


@pytest.mark.parametrize("now", [3.0, 40.0], ids=["patient", "overdue"])
def test_a_look_of_the_schedule_costs_models_not_requests(now: float) -> None:
    """Another arrival costs the same with twenty that wait as with two thousand."""

    def arrive(waiting: int) -> int:
        schedule = crowd(waiting)
        return calls(lambda: schedule.request(Wish("b"), now))

    assert arrive(MANY) == arrive(20)


def test_the_place_of_a_request_is_looked_up_not_counted() -> None:
    """Who shows everybody's place, as the list of models does, pays the same for each."""

    def places(waiting: int) -> int:
        schedule = crowd(waiting)
        found = schedule.waiting_for("b")
        return calls(lambda: [schedule.position(ticket) for ticket in found])

    assert places(MANY) < 2.1 * places(MANY // 2)


def test_a_request_that_was_sent_back_to_wait_stands_where_it_stood() -> None:
    """It arrived before those that came after it, so it is served, shown and counted before them."""
    schedule = crowd(0)
    other, first, late = Wish("b"), Wish("a"), Wish("a")
    schedule.request(other, 2.0)
    schedule.request(first, 20.0)
    schedule.tick(40.0)
    schedule.request(late, 41.0)
    schedule.recall(first, 41.0)
    assert schedule.waiting_for("a") == (first, late)
    assert [schedule.position(one) for one in (other, first, late)] == [1, 2, 3]
