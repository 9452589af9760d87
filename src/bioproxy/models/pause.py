"""A pause: an operator wants the card, or closes the lid. Nothing computes here until `resume`, or for a time.

What runs may finish, for as long as an unload lets it; what pays is saved; every engine of ours is stopped, and one
that is not ours is left alone: nothing that computes, warms up or saves reaches it. Requests that wait or come are
refused at once, with 503 and the seconds that are left: held in a queue they would fail later and tell nobody why, and
those for a model with a `fallback` would not get it. Models of other servers (peers) answer as ever.

A reload does not end a pause; a restart does, because who starts the program wants it to serve. Its end is a time of
the wall clock: an hour is over after a night with the lid closed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

import msgspec

from bioproxy import aio
from bioproxy.config.units import write_seconds
from bioproxy.errors import Closed
from bioproxy.events import Bus, PauseChanged
from bioproxy.models.fleet import Fleet

log = logging.getLogger(__name__)

LOOK = 30.0  # seconds at most between two looks at the wall clock, which runs on while the machine sleeps
RETRY = 60  # seconds after which a client is told to ask again if nobody knows when the pause ends


class PauseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Since when it is paused and until when, in unix time; `until` None: until somebody resumes it."""

    since: float
    until: float | None


class Pause:
    """The pause of one fleet; `wall` is unix time."""

    def __init__(self, fleet: Fleet, *, bus: Bus, wall: Callable[[], float] = time.time) -> None:
        self.fleet, self.bus, self.wall = fleet, bus, wall
        self.status: PauseStatus | None = None
        self.news = asyncio.Event()

    def left(self) -> float:
        """Seconds until it ends; infinity if that is not known, or there is none."""
        if self.status is None or self.status.until is None:
            return math.inf
        return max(0.0, self.status.until - self.wall())

    def sentence(self) -> str:
        """What is said of it; "" if there is none."""
        left = self.left()
        still = "" if math.isinf(left) else f" for another {write_seconds(float(max(1, math.ceil(left))))}"
        return f"bioproxy is paused{still}; `bioproxy resume` ends that" if self.status is not None else ""

    def refusal(self) -> Closed:
        """What a request is told."""
        left = self.left()
        return Closed(self.sentence(), retry_after=RETRY if math.isinf(left) else max(1, math.ceil(left)))

    def unready(self) -> str:
        """Why a request would not be served now; "" if it would."""
        return self.sentence() or self.fleet.unready()

    async def begin(self, seconds: float | None) -> None:
        """Pause for so long (None: until `end`); returns when what is ours has stopped. Of several the last counts."""
        now = self.wall()
        since = self.status.since if self.status is not None else now
        self.status = PauseStatus(since=since, until=None if seconds is None else now + seconds)
        self.fleet.hold(self.refusal)
        self.news.set()
        log.warning("%s", self.sentence())
        self.bus.publish(PauseChanged(paused=True, until=self.status.until))
        await aio.shielded(self.fleet.rest())  # whoever asked for it may leave

    async def end(self) -> None:
        """Serve again. EngineUnavailable or ModelFailed if the only engine cannot be started."""
        if self.status is None:
            return
        self.fleet.accept()  # at once: who is refused from here on would hear nothing of why
        self.status = None
        log.warning("the pause is over")
        self.bus.publish(PauseChanged(paused=False))
        await aio.shielded(self.fleet.go_on())

    async def run(self) -> None:
        """The service: ends it when its time is over."""
        while True:
            self.news.clear()
            if self.left() <= 0:
                await self.end()
            await aio.wait_first(self.news, timeout=min(self.left(), LOOK))
