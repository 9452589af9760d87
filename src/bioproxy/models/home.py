"""Back to the default model once nothing is asked for (`default_model`, `return_to_default`).

Somebody tried another model, and the next user of the usual one would wait for two swaps' worth of loading. So after so
much idleness the default model is loaded by itself, as if an operator had asked for it, and whatever the rule says must
stop for it is stopped, like for any request.

Nobody waits for it, so it takes nothing from anybody: it never makes a model stop that has `pin`, and it is tried once
after each use of another model. A default model that does not start, or that an operator unloaded, stays away until
then. Pure: what is due is asked with the schedule's clock.
"""

from __future__ import annotations

import math

from bioproxy.models.book import Book
from bioproxy.models.wish import Wish


def last_used(book: Book) -> float:
    """When any model was used last; minus infinity if none was started yet."""
    return max((record.last_used for record in book.records.values() if record.starts), default=-math.inf)


def due(book: Book) -> float:
    """When the machine goes back to its default model if nothing is asked for until then; infinity: it does not."""
    records = book.records
    home = records.get(book.home)
    if home is None or home.present or book.waiting or any(one.running for one in records.values()):
        return math.inf
    last = last_used(book)
    if last <= max(home.last_used, book.rested):
        return math.inf
    present = {one.name for one in records.values() if one.present}
    if any(records[name].settings.pin for name in book.rules.evict(home.name, present)):
        return math.inf
    return max(last + home.settings.home, home.retry_at)


def go(book: Book, now: float) -> None:
    """Let the default model be wanted, by nobody in particular."""
    book.rested = last_used(book)
    book.push(Wish(book.home, load=True), book.records[book.home], now)
