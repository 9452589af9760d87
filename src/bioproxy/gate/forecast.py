"""How long still: when each of those that wait will be granted, from what each of them needs of the engine.

    what runs ─► seconds that each still needs ─┐
    what waits ─► seconds that each needs ──────┴─► the earliest free slot, for one after the other

What a request needs is its prompt, as far as it is not in the cache, at the measured speed, and an answer as long as
those before it, or as its client allows. The order is that of classes and arrival; a fair gate may let another one go
first, and what runs may end at any time. So these are numbers for people who wait, and for `Retry-After`: nothing is
decided by them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heapify, heapreplace

import msgspec

from bioproxy.errors import NOT_JSON
from bioproxy.gate.queue import GUESS, Queue, Ticket
from bioproxy.templates.bodies import Body

BEYOND = 0.25  # of what something should take, that is left of it when that time is over
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
MOST = 256  # tickets that are looked at one by one
FRESH = 0.25  # seconds that a forecast is good for
LONGEST_RETRY = 3600.0  # seconds; an estimate beyond an hour is no information
CHUNK = 0.25  # seconds of background work, which goes in chunks

Cost = Callable[[Ticket, float], float]


class Forecast(msgspec.Struct, frozen=True):
    """Seconds from `at` until each ticket (by its number), and a newcomer, will be granted.

    And until all that runs has ended (`running`), and all that waits too (`drained`). `places` are those of requests in
    the queue, by the identity of their tail: which is next, and its number.
    """

    at: float = 0.0
    starts: dict[int, float] = {}
    places: dict[int, tuple[int, int]] = {}
    newcomer: float = 0.0
    running: float = 0.0
    drained: float = 0.0


def most_tokens(body: Body | None) -> int:
    """How many tokens the answer to a request may have by its client's word; 0: any number."""
    for name in LIMITS if body is not None and body.fields is not None else ():
        try:
            return msgspec.json.decode(body.fields[name], type=int)  # type: ignore[index, union-attr] # it has fields
        except (KeyError, *NOT_JSON):
            continue
    return 0


def rest(expected: float, elapsed: float) -> float:
    """What is left of something that should take `expected` seconds; the longer it went beyond that, the more.

    No client should be told "1 s" while an hour's work runs.
    """
    return max(expected - elapsed, BEYOND * expected, elapsed - (1 - BEYOND) * expected)


def starts(running: Iterable[float], waiting: Iterable[float], *, capacity: int) -> list[float]:
    """When each of those that wait can begin, and after them a newcomer; all in seconds, from what each needs."""
    ends = sorted(running)
    ends = ends[max(0, len(ends) - capacity) :]  # of more than there is room for the first to end make no room
    ends += [0.0] * (capacity - len(ends))
    heapify(ends)
    found = []
    for needs in waiting:
        found.append(ends[0])
        heapreplace(ends, ends[0] + needs)
    return [*found, ends[0]]


def forecast(queue: Queue, now: float, cost: Cost) -> Forecast:
    """The outlook of all that wait. What `cost` says of a waiting ticket is kept: it is asked for once."""
    tickets = queue.tickets()
    needs: list[float] = []
    for ticket in tickets[:MOST]:
        ticket.needs = ticket.needs or cost(ticket, now)
        needs.append(ticket.needs * queue.bias)
    usual = sum(needs) / len(needs) if needs else 0.0
    needs += [usual] * (len(tickets) - len(needs))
    capacity = min(queue.capacity, len(queue.running) + len(tickets) + 1)  # of slots without a number few count
    left = [cost(ticket, now) for ticket in queue.running]
    found = starts(left, needs, capacity=capacity)
    ends = [begin + seconds for begin, seconds in zip(found, needs, strict=False)]
    numbers = {ticket.number: begin for ticket, begin in zip(tickets, found, strict=False)}
    places = {id(ticket.tail): (place, ticket.number) for place, ticket in enumerate(tickets, 1)}
    running = max(left, default=0.0)
    return Forecast(now, numbers, places, found[-1], running, max([running, *ends]))


def usual(queue: Queue) -> Cost:
    """The cost of a ticket of which nothing is known: what grants took before."""

    def cost(ticket: Ticket, now: float) -> float:
        seconds = CHUNK if ticket.work == "background" else GUESS if queue.measured is None else queue.measured
        return rest(seconds, now - ticket.granted) if ticket in queue.running else seconds

    return cost
