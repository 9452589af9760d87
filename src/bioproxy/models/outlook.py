"""How long still until a model is ready for those who wait for it: from what loads and swaps took before.

    what is in its way is busy or held ─► it stops, and is saved ─► the model starts, its cache comes back
    drained, held_until                   its newest swap           its newest load

A model that was never loaded tells nothing: then nothing is said, and not a guess. Pure; what the gates of other models
know is handed in.
"""

from __future__ import annotations

from collections.abc import Callable

from bioproxy.events import SwapEnded
from bioproxy.gate.forecast import Forecast, rest
from bioproxy.models.book import Book, Record
from bioproxy.models.state import State
from bioproxy.models.waits import GOING

Drained = Callable[[str], Forecast]


def until_ready(book: Book, model: str, now: float, *, swap: SwapEnded | None, drained: Drained) -> float | None:
    """Seconds until `model` is ready; None if that is not known. `swap` is its newest one."""
    record = book.records.get(model)
    if record is None or record.load_seconds is None or record.state is State.READY:
        return None
    if record.state is State.STARTING:
        return rest(record.load_seconds, now - record.started_at)
    if record.waits.part == "pause":
        return max(0.0, record.start_at - now) + record.load_seconds
    before = swap.stop + swap.save if swap is not None else 0.0
    if record.waits.part in GOING:
        return rest(before, now - record.waits.since) + record.load_seconds
    return until_free(book, record, now, drained=drained) + before + record.load_seconds


def until_free(book: Book, record: Record, now: float, *, drained: Drained) -> float:
    """Seconds until all models in its way may be stopped.

    Who has waited for `max_wait` waits for what runs then, and for nobody who came later.
    """
    overdue = max(0.0, record.first().arrived + book.max_wait - now) if record.waiting else 0.0
    longest = 0.0
    for name in record.displaces:
        other = book.records.get(name)
        if other is None or not other.state.live:
            continue
        seen = drained(name)
        if other.running:
            longest = max(longest, min(seen.drained, overdue + seen.running))
        elif other.state is State.STARTING:
            longest = max(longest, rest(other.load_seconds or 0.0, now - other.started_at))
        else:
            held, _ = other.held_until(record, since=now - book.max_wait)
            longest = max(longest, min(held - now, overdue))
    return longest
