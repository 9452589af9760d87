"""When the disk or the model is in the way: saving stops, says so once, and goes on by itself.

Requests are served all the while. A pause has a kind (the metric's label) and a sentence with what would mend it; it is
logged once as a warning, however often it is tried again, until a save has really worked.

A disk that has room again is noticed within a minute: looking costs a small file. Only a save that hung is tried again
later and later, because each try may hold a user up until its time is out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable

from bioproxy.events import Bus, SavingPaused

log = logging.getLogger(__name__)

KINDS = ("disk", "engine", "folder", "min_free", "model", "short", "timeout", "write_budget")
OF_PROCESS = ("timeout", "model")  # kinds that are a process's fault and not the disk's
FIRST_RETRY = 20.0  # seconds until a paused save is tried again, and at most from then on
LAST_RETRY = 600.0  # the same after saves that hung, doubling in between


class Pause:
    """Whether saving is paused. `clock` is monotonic, in seconds; `model` and `folder` say whose snapshots, and where.

    `watchers` are called when saving goes on.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Callable[[], float],
        *,
        model: str = "",
        folder: Callable[[], object] = lambda: "",
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self.bus = bus
        self.clock = clock
        self.model, self.folder = model, folder
        self.watchers: set[Callable[[], None]] = set()
        self.first_retry = first_retry
        self.kind = self.reason = ""
        self.warned: set[str] = set()
        self.retry_at = 0.0
        self.delay = first_retry

    def __bool__(self) -> bool:
        """True while saving is paused, whether or not it is time to try again."""
        return bool(self.kind)

    @property
    def due(self) -> bool:
        """Whether a save may be tried: not paused, or paused for long enough."""
        return not self.kind or self.clock() >= self.retry_at

    def enter(self, kind: str, reason: str) -> None:
        """Stop saving because of `reason`."""
        longest = LAST_RETRY if kind == "timeout" else FIRST_RETRY
        self.delay = min(longest, self.delay * 2) if self.kind == kind else self.first_retry
        self.retry_at = self.clock() + self.delay
        if kind not in self.warned:
            self.warned.add(kind)
            log.warning("%ssaving snapshots is paused: %s", self.whose, reason)
        before, self.kind, self.reason = self.kind, kind, reason
        if before != kind:
            self.tell(kind, reason, paused=True)

    @property
    def whose(self) -> str:
        """What begins a line of the log."""
        return f"{self.model}: " if self.model else ""

    def tell(self, kind: str, reason: str, *, paused: bool) -> None:
        """Publish it."""
        folder = str(self.folder() or "")
        self.bus.publish(SavingPaused(paused=paused, kind=kind, reason=reason, model=self.model, folder=folder))

    def resumed(self, kind: str) -> None:
        """Saving goes on: what is warm and could not be saved can be saved now."""
        self.tell(kind, "", paused=False)
        for watcher in tuple(self.watchers):
            watcher()

    def renewed(self) -> None:
        """The engine is another process now: what was wrong with the one before is over."""
        if self.kind in OF_PROCESS:
            self.leave(proved=False)

    def leave(self, *, proved: bool) -> None:
        """Nothing is in the way any more. `proved`: a save worked, so that the next trouble is news again."""
        before, self.kind, self.reason = self.kind, "", ""
        if proved:
            self.warned.clear()
            self.delay = self.first_retry
        if before:
            log.info("%ssaving snapshots goes on: %s is over", self.whose, before)
            self.resumed(before)


def counted(kinds: Iterable[str]) -> dict[str, int]:
    """How many are paused of each kind, those of which there is none included; "" is not paused."""
    found = Counter(filter(None, kinds))
    return {**dict.fromkeys(KINDS, 0), **found}
