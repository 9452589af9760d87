"""How long still until a model serves those who wait for it: from what loads and swaps took before.

What waits for models that cannot run beside one another is played through, by the rules of the schedule (round.py): who
has waited for `max_wait` goes first, the oldest of them before the others; else the model that is there serves all of
its own; each change of the model costs a swap. A model that was never loaded tells nothing: then nothing is said, and
not a guess. Pure; what gates and stations know is handed in.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import msgspec

from bioproxy.events import SwapEnded
from bioproxy.gate.forecast import rest
from bioproxy.models.book import Book, Record
from bioproxy.models.state import Aim, State
from bioproxy.models.waits import GOING
from bioproxy.models.wish import Wish

MOST = 256  # requests that are played through

Swapped = Callable[[str], SwapEnded | None]
Cost = Callable[[Wish], float]


class Busy(msgspec.Struct, frozen=True):
    """A model that is in the way: seconds until what runs there has ended, and what waits in its gate.

    Of each of those when it came, and the seconds that it needs.
    """

    running: float = 0.0
    waiting: tuple[tuple[float, float], ...] = ()


class Turn(msgspec.Struct, frozen=True, order=True):
    """Something that waits: when it came, its number, the seconds that it needs. Older ones are less."""

    arrived: float
    number: int = 0
    seconds: float = msgspec.field(default=0.0)


def until_ready(book: Book, model: str, now: float, *, swapped: Swapped, busy: Callable[[str], Busy]) -> float | None:
    """Seconds until `model` is ready for who waits for it first; None if that is not known."""
    record = book.records.get(model)
    if record is None or record.load_seconds is None or record.state is State.READY:
        return None
    if record.state is State.STARTING:
        return rest(record.load_seconds, now - record.started_at)
    if record.waits.part == "pause":
        return max(0.0, record.start_at - now) + record.load_seconds
    before = before_start(swapped(model))
    if record.waits.part in GOING or record.aim is Aim.COME:
        return rest(before, now - record.waits.since) + record.load_seconds
    return until_free(book, record, now, busy=busy) + before + record.load_seconds


def before_start(swap: SwapEnded | None) -> float:
    """What the stop of others, and the save of what they hold, took the last time."""
    return swap.stop + swap.save if swap is not None else 0.0


def until_free(book: Book, record: Record, now: float, *, busy: Callable[[str], Busy]) -> float:
    """Seconds until all models in its way may be stopped.

    Who has waited for `max_wait` waits for what runs then, and what came before it, and for nobody who came later.
    """
    arrived = record.first().arrived if record.waiting else now
    overdue = max(0.0, arrived + book.max_wait - now)
    longest = 0.0
    for name in record.displaces:
        other = book.records.get(name)
        if other is None or not other.state.live:
            continue
        seen = busy(name)
        if other.running:
            older = sum(seconds for came, seconds in seen.waiting if came < arrived)
            newer = sum(seconds for came, seconds in seen.waiting if came >= arrived)
            longest = max(longest, seen.running + older + min(newer, max(0.0, overdue - seen.running - older)))
        elif other.state is State.STARTING:
            longest = max(longest, rest(other.load_seconds or 0.0, now - other.started_at))
        else:
            held, _ = other.held_until(record, since=now - book.max_wait)
            longest = max(longest, min(held - now, overdue))
    return longest


def until_served(
    book: Book, model: str, now: float, *, swapped: Swapped, busy: Callable[[str], Busy], cost: Cost
) -> dict[int, float]:
    """Seconds until each that waits for `model` is served, and has a slot, by its number; none if that is not known."""
    ready = until_ready(book, model, now, swapped=swapped, busy=busy)
    if ready is None:
        return {}
    queues = turns_of(book, model, busy=busy, cost=cost)
    found, at, current = {}, ready, model
    for _ in range(MOST):
        if model not in queues:
            break
        name = following(queues, current, now + at - book.max_wait)
        if name != current:
            at += before_start(swapped(name)) + (book.records[name].load_seconds or 0.0)
            current = name
        turn = queues[name].pop(0)
        if name == model:
            found[turn.number] = at
        at += turn.seconds
        if not queues[name]:
            del queues[name]
    return found


def turns_of(book: Book, model: str, *, busy: Callable[[str], Busy], cost: Cost) -> dict[str, list[Turn]]:
    """Who waits for a model, and for those that cannot run beside it, each in order of arrival."""
    queues: dict[str, list[Turn]] = {}
    for name, record in book.records.items():
        if not (record.waiting or record.running) or (name != model and not book.rules.evict(name, {model})):
            continue
        turns = [Turn(each.arrived, each.number, cost(each)) for each in islice(record.waiting.values(), MOST)]
        if name != model and record.running:  # those that came before the first of ours run before the swap to it
            first = book.records[model].first().arrived
            turns += [Turn(came, 0, seconds) for came, seconds in busy(name).waiting if came >= first]
        if turns:
            queues[name] = sorted(turns)
    return queues


def following(queues: dict[str, list[Turn]], current: str, since: float) -> str:
    """The model whose turn is next: that of the oldest who came before `since`, else the one that is there."""
    oldest = min(queues, key=lambda name: queues[name][0])
    if queues[oldest][0].arrived <= since or current not in queues:
        return oldest
    return current
