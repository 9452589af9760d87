"""The last changes of models' states and what each swap cost: the time line that the web page draws.

It is always kept, because a person opens the page after something was slow. A record costs a few hundred bytes, and
there is one only if a process changed its state.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec

from bioproxy.admin.status import SwapStatus, swap_status
from bioproxy.events import Bus, EngineChanged, ModelChanged, ModelStopped, SwapEnded
from bioproxy.models.only import ENGINE

MOST_SWAPS = 500


class SwapRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model changed its state at this unix time. `swap`, if it became ready: what that cost; `reason` may be ""."""

    at: float
    model: str
    old: str
    new: str
    reason: str = ""
    swap: SwapStatus | None = None


class Swaps:
    """The last changes of models' states, always kept; `one`: of the one engine, as it was found."""

    def __init__(self, bus: Bus, *, one: bool) -> None:
        self.records: deque[SwapRecord] = deque(maxlen=MOST_SWAPS)
        self.costs: dict[str, SwapEnded] = {}  # of models that become ready in this moment
        self.reasons: dict[str, str] = {}  # of models that were stopped in this moment
        self.state = ""
        self.tell: Callable[[SwapRecord], object] = lambda _: None
        if one:
            bus.subscribe(EngineChanged, self.engine_changed)
            return
        bus.subscribe(SwapEnded, lambda event: self.costs.update({event.model: event}))
        bus.subscribe(ModelStopped, lambda event: self.reasons.update({event.model: event.reason}))
        bus.subscribe(ModelChanged, self.changed)

    def changed(self, event: ModelChanged) -> None:
        over = event.new not in {"stopping", "ready"}
        reason = event.reason or (self.reasons.pop(event.model, "") if over else "")
        cost = swap_status(self.costs.pop(event.model, None)) if event.new == "ready" else None
        self.add(SwapRecord(at=time.time(), model=event.model, old=event.old, new=event.new, reason=reason, swap=cost))

    def engine_changed(self, event: EngineChanged) -> None:
        if event.state != self.state:
            old, self.state = self.state, event.state
            self.add(
                SwapRecord(at=time.time(), model=event.model or ENGINE, old=old, new=event.state, reason=event.reason)
            )

    def add(self, record: SwapRecord) -> None:
        self.records.append(record)
        self.tell(record)
