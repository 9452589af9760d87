"""From the end of a request to its row: what connects the bus, the activity table and the captures.

The one subscriber of `RequestEnded` that writes. Requests that are no POST on a route of models are not metered and
leave no row. The id is known at once, so `ActivityAdded` goes out in the same breath; whoever then asks for the row is
answered after it was written, for the store's worker keeps the order.
"""

from __future__ import annotations

from bioproxy.admin.activity_store import ActivityStore
from bioproxy.admin.captures import Captures
from bioproxy.events import ActivityAdded, Bus, RequestEnded


class ActivityLog:
    """Subscribes with its construction; `close` ends that."""

    def __init__(self, bus: Bus, *, store: ActivityStore, captures: Captures) -> None:
        self.bus = bus
        self.store = store
        self.captures = captures
        self.close = bus.subscribe(RequestEnded, self.ended)

    def ended(self, event: RequestEnded) -> None:
        """One request has ended."""
        if not event.record.metered:
            return
        identity = self.store.add(event.record)
        if event.capture is not None:
            self.captures.add(identity, event.record, event.capture)
        self.bus.publish(ActivityAdded(id=identity))
