"""What a swap does for the cache: save what would be lost before the engine stops, bring back what is wanted after.

Both stand in the way of a user, so both are short. The save has a limit, and what would not end in time is not begun; a
save that was cut leaves nothing, and its time is gone all the same. What makes a written file a snapshot (fsync,
rename, table) goes on while the next engine starts. Bringing back happens before the gate opens, when nobody is let at
the engine and its slots are empty: then nothing can be displaced, and a slot's number is known without asking.

Which snapshots: the best one for each request that waits, in their order; a one-slot engine gets the first one's only,
for the others would throw it out again. Where slots share one buffer, they must all fit into it, for a refused restore
empties the slot.

Nobody waits (a preload, a restart, an engine that was started beside us): then the gate opens, and as long as nobody
asks, an empty slot gets what will most likely be wanted next. That is what was used last of what whoever asks may have:
a template's snapshot, and a conversation's only if all callers are of one group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Sequence

from bioproxy import aio
from bioproxy.errors import BioproxyError
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv.actions import Actions
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.index import Match, usable
from bioproxy.kv.resident import Brought, Prepared, Resident, Residents, Want

log = logging.getLogger(__name__)

COMMITS = 3.0  # seconds that a start may wait for what was saved before the stop
FREE = 2.0  # seconds in which an engine that nobody asks has a grant for us
LONGEST = 3.0  # seconds of a restore that nobody asked for: a user who comes meanwhile waits for it


class Swap:
    """The two ends of an engine's life. `growing`: slots worth a save; `restoring`: whether restores are possible."""

    def __init__(
        self,
        *,
        actions: Actions,
        decisions: Decisions,
        residents: Residents,
        growing: Callable[[], list[Resident]],
        restoring: Callable[[], bool],
    ) -> None:
        self.actions = actions
        self.decisions = decisions
        self.residents = residents
        self.growing = growing
        self.restoring = restoring

    # before the stop (rule 20)

    async def save(self, who: Grant | Gate, *, limit: float) -> float:
        """Save what is resident, pays and is not on disk, within `limit` seconds; the seconds that it took.

        `who` is a grant that is exclusive or can be, or the gate to get one from. Raises nothing of gate or engine.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        if limit <= 0 or not self.growing():
            return 0.0
        if isinstance(who, Gate):
            await self.save_through(who, started + limit)
        elif await self.actions.alone(who):
            try:
                await self.save_until(started + limit)
            finally:
                self.actions.done(who)
        else:
            log.warning("what is resident was not saved: other requests are running")
        return clock() - started

    async def save_through(self, gate: Gate, end: float) -> None:
        """The same until the loop time `end`, with a grant that is asked for."""
        try:
            async with asyncio.timeout_at(end):
                grant = await gate.acquire(work="background", exclusive=True, last=True)
        except (TimeoutError, BioproxyError) as error:
            reason = error.message if isinstance(error, BioproxyError) else "the engine was not free in time"
            log.warning("what is resident was not saved: %s", reason)
            return
        try:
            await self.save_until(end)
        finally:
            grant.release()

    async def save_until(self, end: float) -> None:
        """Save one slot after the other, what is most to compute again first, as long as it can end before `end`.

        What would have to be brought into a slot before comes last.
        """
        clock = asyncio.get_running_loop().time
        for place in sorted(self.growing(), key=lambda one: (one.parked, -self.decisions.unsaved(one))):
            left = end - clock()
            if self.actions.doubt or left <= 0:
                return
            if (needed := self.decisions.seconds_to_save(place)) > left:
                log.warning("%d tokens were not saved: that takes %.1f s, %.1f s are left", place.tokens, needed, left)
                continue
            await self.actions.save(place, limit=left)

    # after the start (rule 21)

    async def bring_back(self, wants: Sequence[Want]) -> float:
        """Restore for the requests that wait, before anybody is let at the engine; the seconds that it took.

        Does nothing where the slots may hold something already, or under policy `always`, which restores by itself.
        What was saved before the stop and is not quite a snapshot yet is waited for: it is what these requests want.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        if wants and self.restoring() and not self.decisions.literal:
            await self.actions.saver.settle(COMMITS)
            free = [slot for slot in self.residents.slots if slot.empty and slot.slot is not None]
            for place, match in zip(free, self.wanted(wants, len(free)), strict=False):
                if self.actions.doubt:
                    break
                await aio.shielded(self.bring(place, match))
        return clock() - started

    def wanted(self, wants: Sequence[Want], most: int) -> list[Match]:
        """What shall be restored, each snapshot once, `most` at most and no more than fits."""
        if not most:
            return []
        asked = wants[:1] if len(self.residents.slots) == 1 else wants
        matches = [self.decisions.best(want, 0) for want in asked]
        found: list[Match] = []
        room = self.decisions.room
        for match in matches:
            if match is None or any(match.snapshot.id == other.snapshot.id for other in found):
                continue
            room -= match.snapshot.tokens
            if found and (room < 0 or len(found) == most):
                break
            found.append(match)
        return found

    async def bring(self, place: Resident, match: Match) -> None:
        """Restore one snapshot into an empty slot, to its end; who uses it first will judge it."""
        prepared = Prepared()
        slot = place.slot or 0
        if await self.actions.restorer.restore(match, place, slot, prepared, unsaved=0):
            self.residents.settle(place, slot)
            place.brought = Brought(match.snapshot, prepared.seconds)
        self.actions.doubted(self.actions.restorer.uncertain)
        if prepared.status == "failed":
            self.actions.restores["failed"] += 1

    # while nobody asks (rule 21)

    async def fill(self, gate: Gate) -> int:
        """Restore into empty slots what will most likely be wanted next, one after the other; how many.

        One model of the program at a time. It gives way to whoever asks: what takes long (comparing the file with what
        was written) is done before the grant, and a busy engine is left alone.
        """
        count, unfit = 0, set[str]()
        await self.actions.saver.settle(COMMITS)
        async with self.decisions.tenant.shelves.filling:
            while (found := self.likely(unfit)) is not None:
                place, match = found
                if await self.actions.restorer.verified(match.snapshot):
                    unfit.add(match.snapshot.id)
                elif await self.fill_one(gate, place, match):
                    count += 1
                else:
                    break
        return count

    async def fill_one(self, gate: Gate, place: Resident, match: Match) -> bool:
        """Restore `match` into `place` under a grant; False if somebody asks, or it is not wanted any more."""
        try:
            async with asyncio.timeout(FREE):
                grant = await gate.acquire(work="background", exclusive=True)
        except (TimeoutError, BioproxyError) as error:
            log.debug("nothing is restored: %s", error)
            return False
        try:
            current = usable(match.snapshot, self.decisions.tenant.scope)
            if not gate.user_waiting and place.empty and current and self.restoring():
                await aio.shielded(self.bring(place, match))
        finally:
            grant.release()
        return place.saved == match.snapshot.id

    def likely(self, unfit: Container[str] = ()) -> tuple[Resident, Match] | None:
        """An empty slot and what should be in it. Where requests clear idle slots, one of them is enough.

        `unfit`: snapshots that cannot be used now.
        """
        slots = self.residents.slots
        empty = [slot for slot in slots if slot.empty and slot.slot is not None]
        enough = self.residents.parks and len(empty) < len(slots)
        if not empty or enough or self.decisions.literal or not self.restoring():
            return None
        room = self.decisions.room - sum(slot.tokens for slot in slots)
        rate = self.decisions.tenant.knowledge.speeds.restore
        for match in self.decisions.likely():
            snapshot = match.snapshot
            held = any(snapshot.end in slot.digests for slot in slots)
            if not held and snapshot.id not in unfit and snapshot.tokens <= room and snapshot.size <= LONGEST * rate:
                return empty[0], match
        return None


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
        save: Callable[[Grant], Awaitable[int]],
        fill: Callable[[Gate], Awaitable[int]],
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
        self.gate: Gate | None = None
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

    async def moment(self, gate: Gate) -> None:
        """Return when a save is due: idle for `save_after`, or something has been waiting for `save_every`."""
        now = time.monotonic()
        oldest = min((place.since for place in self.growing()), default=now)
        try:
            async with asyncio.timeout(max(0.0, oldest + self.save_every - now)):
                await gate.wait_idle(self.save_after)
        except TimeoutError:
            log.debug("a conversation has grown for %.0f s without a save", self.save_every)

    async def save_alone(self, gate: Gate) -> None:
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
