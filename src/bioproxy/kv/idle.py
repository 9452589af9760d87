"""What happens when nobody asks: conversations that grew are saved, empty slots filled, and the folder kept in order.

A conversation is saved once the engine was idle for `kv.save_after`; on an engine that never is, `kv.save_every` after
it began to grow, at the next moment that no user waits. So a power cut costs what came after the last save and no more.
A user who comes meanwhile waits for one save at most: the grant goes back before anything slow happens on disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from bioproxy.errors import BioproxyError
from bioproxy.kv.resident import Resident
from bioproxy.kv.want import GateLike, GrantLike

log = logging.getLogger(__name__)

TICK = 30.0  # seconds between looks at the folder


class IdleSaver:
    """The background service of one keeper.

    `growing` names slots worth a save now; `save` saves them under a grant; `fill` restores into empty slots what will
    most likely be wanted next; `look_after` keeps the folder in order. `grown` and `emptied` are set by the keeper
    whenever there may be something to save, or a slot to fill.
    """

    def __init__(
        self,
        *,
        save_after: float,
        save_every: float,
        growing: Callable[[], Sequence[Resident]],
        save: Callable[[GrantLike], Awaitable[int]],
        fill: Callable[[GateLike], Awaitable[int]],
        look_after: Callable[[], Awaitable[None]],
        tick: float = TICK,
    ) -> None:
        self.save_after = save_after
        self.save_every = save_every
        self.growing = growing
        self.save = save
        self.fill = fill
        self.look_after = look_after
        self.tick = tick
        self.gate: GateLike | None = None
        self.grown = asyncio.Event()
        self.emptied = asyncio.Event()

    async def run(self) -> None:
        """All loops, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.save_conversations(), name="idle saves")
            tasks.create_task(self.fill_slots(), name="empty slots")
            tasks.create_task(self.keep_order(), name="snapshot folder")

    async def keep_order(self) -> None:
        """Look after the folder every `tick` seconds."""
        while True:
            await asyncio.sleep(self.tick)
            await self.look_after()

    async def fill_slots(self) -> None:
        """Fill empty slots, each time there may be some."""
        while True:
            await self.emptied.wait()
            self.emptied.clear()
            if self.gate is not None:
                await self.fill(self.gate)

    async def save_conversations(self) -> None:
        """Save what grew, each time there is something, at the right moment."""
        while True:
            await self.grown.wait()
            self.grown.clear()
            if self.gate is not None and self.growing():
                await self.moment(self.gate)
                await self.save_alone(self.gate)

    async def moment(self, gate: GateLike) -> None:
        """Return when a save is due: idle for `save_after`, or something has been waiting for `save_every`."""
        now = time.monotonic()
        oldest = min((place.since for place in self.growing()), default=now)
        try:
            async with asyncio.timeout(max(0.0, oldest + self.save_every - now)):
                await gate.wait_idle(self.save_after)
        except TimeoutError:
            log.debug("a conversation has grown for %.0f s without a save", self.save_every)

    async def save_alone(self, gate: GateLike) -> None:
        """Take the engine alone, behind all users, and save."""
        if not self.growing():
            return
        try:
            grant = await gate.acquire(work="background", exclusive=True)
        except BioproxyError as error:  # the shutdown, which saves by itself
            log.debug("nothing is saved: %s", error.message)
            return
        try:
            await self.save(grant)
        finally:
            grant.release()
