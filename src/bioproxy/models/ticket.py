"""A request's place in the schedule: it waits for its model, then runs on it, then is done.

A ticket goes back from RUNNING to WAITING in one case only: it was let through to a model whose gate it still waits in,
and somebody else's turn came (`Recall` in effects.py). A load is a ticket that nothing runs for: it is done when the
model is ready.
"""

from __future__ import annotations

from enum import Enum


class Place(Enum):
    """Where a ticket is."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Ticket:
    """One request for `model`, or with `load` the wish to have it loaded.

    `context` belongs to the caller (the task to wake, what to restore). `arrived` is in seconds of the caller's clock;
    `number` counts arrivals and is what order means where two arrived at once.
    """

    __slots__ = ("arrived", "context", "load", "model", "number", "place")

    def __init__(self, model: str, *, load: bool = False, context: object = None) -> None:
        self.model = model
        self.load = load
        self.context = context
        self.place = Place.NEW
        self.arrived = 0.0
        self.number = 0

    def __repr__(self) -> str:
        kind = "load of" if self.load else "request for"
        return f"<{kind} {self.model}, number {self.number}, {self.place.value}>"
