"""A wish for a model, of a request or only to have it loaded, as the schedule and the supervisor know it.

It waits for its model, then runs on it, then is done. It goes back from RUNNING to WAITING in one case only: it was let
through to a model whose gate it still waits in, and another model's turn came (`Recall` in effects.py). A load is done
when the model is ready: nothing runs for it.
"""

from __future__ import annotations

from asyncio import Future, Task
from enum import Enum

from bioproxy.kv.keeper import Want
from bioproxy.models.unit import Unit


class Place(Enum):
    """Where a wish is."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Wish:
    """One request for `model`, or with `load` the wish to have it loaded; the process of `unit` serves it.

    The schedule's: `place`, `arrived` in seconds of the caller's clock, and `number`, which counts arrivals and is what
    order means if two arrived at once. The supervisor's: `future`, None if nothing is waited for; `in_gate`, the task
    that waits in the engine's gate, which is cancelled once if the wish is `recalled`; `cut`, why we stopped its
    process while it ran. `key` is what its cache should hold, for the restore; `needs` are the seconds that it needs of
    its engine, once somebody asked (0: nobody did).
    """

    model: str
    key: Want | None = None
    load: bool = False
    place: Place = Place.NEW
    arrived: float = 0.0
    number: int = 0
    future: Future[None] | None = None
    in_gate: Task[object] | None = None
    recalled: bool = False
    cut: str = ""
    unit: Unit | None = None
    needs: float = 0.0

    def __init__(self, model: str, *, load: bool = False) -> None:
        self.model = model
        self.load = load

    def renew(self) -> None:
        """Begin anew: what it had before is given back."""
        self.place = Place.NEW
        self.future = self.in_gate = self.unit = None
        self.recalled = False
        self.cut = ""

    def __repr__(self) -> str:
        kind = "load of" if self.load else "request for"
        return f"<{kind} {self.model}, number {self.number}, {self.place.value}>"
