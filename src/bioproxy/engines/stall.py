"""Is a silent engine working or stuck? Looked at only while a request of ours waits for its next byte.

Signs of life, from cheap to dear: a byte of any running request; progress in `/slots`; processor time of the process.
The relay counts the bytes, and they are only read here, so a stream pays nothing for being watched. `/slots` is
asked every five seconds, and only after a quarter of the time-out passed in silence: an honest ten-minute prefill shows
progress there and is left alone.

What a stuck engine may be, in the order in which it is treated:
1. The lost wake-up (facts, 0.4): the slots are idle, and a request sleeps in the queue for ever. Any other request that
   ends wakes it: one token is asked for. If that does not come either, idle slots are no good sign any more.
2. A request that hangs: after the whole time-out without a sign those that run are cancelled, which closes their
   connections.
3. Ten seconds later the slots are still taken, or nothing answers: the engine itself is stuck. That is reported to
   the Attachment, and what follows is not decided here.

Processor time is that of the process and all below it. If there is a `/slots` to show progress, it alone is believed
for ten time-outs: a livelock (facts, 0.3) burns it for ever and gets nowhere. An engine of another kind shows nothing
else, and may be at a film: the least work of its processes is a sign of life, however long it goes on. That such a one
answers its health after the cancellation says little, because its web server is another thread: if the next request
gets no byte either, it is stuck. If neither `/slots` nor processes can be seen, silence proves nothing and nothing is
done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.engines import listener
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError

Json = Any
log = logging.getLogger(__name__)
BUSY = 0.05  # of one processor: less is no work
HARDLY = 0.01  # the same for an engine that shows nothing else
CPU_ALONE = 10  # time-outs for which processor time alone counts as life


class Watched(msgspec.Struct):
    """One running request: `received` counts the bytes so far, `cancel` ends it with a sentence."""

    received: Callable[[], int]
    cancel: Callable[[str], None]
    seen: int = 0


class Signs(msgspec.Struct, frozen=True):
    """What was seen of an engine at one moment; None is "not seen". `asked`: it has /slots, so it should answer."""

    asked: bool
    progress: tuple[Json, ...] | None
    cpu: float | None
    idle: bool
    at: float


class StallStatistics(msgspec.Struct, frozen=True):
    """Requests that are watched, seconds since the last sign of life (0 when none runs), what was done so far."""

    watched: int
    quiet: float
    pokes: int
    cancelled: int
    stuck: int


class Stall:
    """Watches the silence of one engine. `timeout`: `stall_timeout`, 0 switches it off; the rest are for tests.

    `facts` gives the engine as it is now, None while there is none. `on_stuck` is awaited with a sentence, `on_poked`
    called after a poke: a slot may hold something else then.
    """

    def __init__(
        self,
        llama: Llama,
        *,
        timeout: float,
        facts: Callable[[], EngineFacts | None],
        on_stuck: Callable[[str], Awaitable[None]],
        on_poked: Callable[[str], None],
        period: float = 5.0,
        recovery: float = 10.0,
    ) -> None:
        self.llama, self.timeout, self.facts = llama, timeout, facts
        self.on_stuck, self.on_poked = on_stuck, on_poked
        self.period, self.recovery = min(period, max(timeout, 0.04) / 4), recovery
        self.entries: dict[int, Watched] = {}
        self.last_sign = self.last_progress = 0.0
        self.before: Signs | None = None
        self.poked = False
        self.suspect = ""  # what speaks against it, though it seemed well afterwards; no byte has come since
        self.pokes = self.cancelled = self.stuck = self.numbers = 0

    def statistics(self) -> StallStatistics:
        """Watched requests, the present silence, and what was done."""
        quiet = asyncio.get_running_loop().time() - self.last_sign if self.entries else 0.0
        return StallStatistics(len(self.entries), quiet, self.pokes, self.cancelled, self.stuck)

    def watch(self, received: Callable[[], int], cancel: Callable[[str], None]) -> Callable[[], None]:
        """Watch a request from now on; what is returned ends that, and must be called whatever happens."""
        if not self.entries:
            self.touch()
        self.numbers += 1
        self.entries[self.numbers] = Watched(received, cancel)
        return partial(self.release, self.numbers)

    def release(self, number: int) -> None:
        """A request ended; the bytes that it got since the last look are a sign of life, if others are watched."""
        entry = self.entries.pop(number, None)
        if entry is not None and entry.received() != entry.seen:
            self.suspect = ""
            if self.entries:
                self.touch()

    def touch(self) -> None:
        """A sign of life: the silence begins anew."""
        self.last_sign = self.last_progress = asyncio.get_running_loop().time()
        self.before, self.poked = None, False

    async def run(self) -> None:
        """The service; ends at once if the detection is off."""
        while self.timeout > 0:
            await asyncio.sleep(self.period)
            if self.entries and self.silent_for() >= self.timeout / 4 and self.facts() is not None:
                await self.look()

    def silent_for(self) -> float:
        """Seconds since the last sign of life; bytes that came meanwhile count."""
        for entry in self.entries.values():
            received = entry.received()
            if received != entry.seen:
                entry.seen = received
                self.suspect = ""
                self.touch()
        return asyncio.get_running_loop().time() - self.last_sign

    async def look(self) -> None:
        """One look at a silent engine, and what follows from it."""
        now, before = await self.signs(), self.before
        self.before = now
        if before is None or self.silent_for() < self.timeout / 4 or self.alive(before, now):
            return
        if before.idle and now.idle and not self.poked:
            await self.poke()
        elif self.silent_for() >= self.timeout and (now.asked or now.cpu is not None):
            await self.give_up(now)

    def alive(self, before: Signs, now: Signs) -> bool:
        """Whether something moved between two looks; notes it."""
        if now.progress is not None and before.progress is not None and now.progress != before.progress:
            self.touch()
            self.before = now
            return True
        least = BUSY if now.asked else HARDLY
        if now.cpu is None or before.cpu is None or now.cpu - before.cpu <= least * (now.at - before.at):
            return False
        if now.asked and now.at - self.last_progress > CPU_ALONE * self.timeout:
            return False
        self.last_sign = now.at
        return True

    async def signs(self) -> Signs:
        loop, facts = asyncio.get_running_loop(), self.facts()
        progress: tuple[Json, ...] | None = None
        idle = False
        asked = facts is not None and facts.capabilities.slots_route
        if asked:
            try:
                slots = await self.llama.slots()
                progress = tuple(slot.progress for slot in slots)
                idle = not any(slot.is_processing for slot in slots)
            except BioproxyError as error:
                log.debug("a silent engine did not answer GET /slots: %s", error)
        pid = facts.pid if facts is not None else None
        cpu = await asyncio.to_thread(listener.cpu_seconds, pid) if pid is not None else None
        return Signs(asked, progress, cpu, idle, loop.time())

    async def poke(self) -> None:
        """Ask for one token: the end of any request wakes one that was forgotten in the queue."""
        self.poked = True
        self.pokes += 1
        log.warning("the engine's slots are idle, yet a request waits for %.0f s: waking its queue", self.silent_for())
        try:
            await self.llama.one_token(self.recovery)
        except BioproxyError as error:
            log.warning("the engine did not answer a one-token request: %s", error)
            self.suspect = "and did not compute the one token that it was asked for"
        self.on_poked("the engine's queue was woken with a one-token request")

    async def give_up(self, then: Signs) -> None:
        """Cancel what runs; if that does not free the slots, or did not help the last time, the engine is stuck."""
        sentence = f"the engine gave no sign of life for {self.silent_for():.0f} s"
        log.error("%s: no byte, no progress, no processor time; cancelling %d request(s)", sentence, len(self.entries))
        self.cancelled += len(self.entries)
        for entry in list(self.entries.values()):
            entry.cancel(sentence)
        before, self.suspect = self.suspect, "again, and nothing came out of it in between"
        self.touch()

        async def recovered() -> bool | None:
            return await self.recovered(then) or None

        if before and (then.idle or not then.asked):
            await self.end(f"{sentence}, {before}")
        elif await aio.poll(recovered, interval=min(2.0, self.recovery / 4), deadline=self.recovery) is None:
            left = "its slots did not become free" if then.asked else "it did not answer GET /health"
            await self.end(f"{sentence}, and {left} after its requests were cancelled")
        self.touch()

    async def end(self, sentence: str) -> None:
        """It is stuck: others decide what follows."""
        self.stuck += 1
        self.suspect = ""
        await self.on_stuck(sentence)

    async def recovered(self, then: Signs) -> bool:
        """Whether the slots are free, or work on something else than they did `then`; without slots: its health."""
        now = await self.signs()
        if now.asked:
            return now.progress is not None and (now.idle or now.progress != then.progress)
        return bool(await self.llama.well())
