"""What is done for the cache when no request asks for it: idle saves, before a stop, after a start, housekeeping.

**Idle.** A conversation that grew is saved once the engine was idle for `kv.save_after`; on an engine that never is,
`kv.save_every` after it began to grow, at the next moment that no user waits. So a power cut costs what came after the
last save and no more. A user who comes meanwhile waits for one save at most: the grant goes back before anything slow
happens on disk.

**Before a stop** and **after a start** a user waits, so both are short. The save has a limit, and what would not end in
time is not begun; a save that was cut leaves nothing, and its time is gone all the same. What makes a written file a
snapshot (fsync, rename, table) goes on while the next engine starts. Bringing back happens before the gate opens, when
no request can reach the engine and its slots are empty: then nothing can be displaced, and a slot's number is known
without asking.

Which snapshots: the best one for each request that waits, in their order; a one-slot engine gets the first one's only,
for the others would throw it out again. If slots share one buffer, they must all fit into it, for a refused restore
empties the slot.

If no request waits (a preload, a restart, an engine that was started beside us), the gate opens, and as long as none
comes, an empty slot gets what will most likely be wanted next. That is what was used last of what any caller may have:
a template's snapshot, and a conversation's only if all callers are of one group.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Container, Sequence
from operator import attrgetter

from bioproxy import aio
from bioproxy.errors import BioproxyError, in_words
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv import scrub
from bioproxy.kv.actions import LOOKED_AT, Actions
from bioproxy.kv.attaching import Attaching
from bioproxy.kv.chat_template import ChatTemplate
from bioproxy.kv.folder import FolderError
from bioproxy.kv.index import Match, usable
from bioproxy.kv.resident import Resident, Want

log = logging.getLogger(__name__)

TICK = 30.0  # seconds between looks at the folder
FREE = 2.0  # seconds in which an engine that has no requests has a grant for us
BUSY = "the engine was not free in time"
PARKED = attrgetter("parked")
LONGEST = 3.0  # seconds of a restore that no request asked for: a user who comes meanwhile waits for it


class Moments:
    """What one keeper does on its own. `gate`: where grants come from; `tick`: seconds between looks at the folder.

    The keeper sets `grown` and `emptied` whenever there may be something to save, or a slot to fill.
    """

    def __init__(
        self, gate: Gate, actions: Actions, attaching: Attaching, template: ChatTemplate, *, tick: float = TICK
    ) -> None:
        self.gate = gate
        self.actions = actions
        self.attaching = attaching
        self.template = template
        self.decisions, self.residents = actions.decisions, actions.residents
        self.saver, self.restorer = actions.saver, actions.restorer
        self.config, self.tenant = actions.decisions.config, actions.decisions.tenant
        self.tenant.shelves.gates.add(gate)
        self.tick = tick
        actions.waiting = self.waiting
        self.grown = asyncio.Event()
        self.emptied = asyncio.Event()

    def waiting(self) -> list[Want]:
        """What the requests want that wait in the gate."""
        return [self.template.read(ticket.key) for ticket in self.gate.queue.tickets() if isinstance(ticket.key, Want)]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.save_conversations(), name="idle saves")
            tasks.create_task(self.fill_slots(), name="empty slots")
            tasks.create_task(self.keep_order(), name="snapshot folder")

    def growing(self) -> list[Resident]:
        """What is worth a save, in slots first, then in the engine's RAM cache, from where it can be brought back."""
        if not self.actions.saving:
            return []
        residents, found = self.residents, list[Resident]()
        for one in (*residents.slots, *residents.parked):
            kept = one.savable or (one.again is not None and one.recallable and residents.memory)
            if kept and self.decisions.worth_saving(one, self.decisions.unsaved(one)):
                found.append(one)
        return sorted(found, key=PARKED) if len(found) > 1 else found

    # while the engine is idle (rule 17)

    async def save_conversations(self) -> None:
        while True:
            await self.grown.wait()
            self.grown.clear()
            if places := self.growing():
                await self.moment(min(place.since for place in places))
                await self.save_alone()

    async def moment(self, oldest: float) -> None:
        """Return when a save is due: idle for `save_after`, or `save_every` after the monotonic time `oldest`."""
        try:
            async with asyncio.timeout(max(0.0, oldest + self.config.save_every - time.monotonic())):
                await self.gate.wait_idle(self.config.save_after)
        except TimeoutError:
            log.debug("a conversation has grown for %.0f s without a save", self.config.save_every)

    async def save_alone(self) -> None:
        """Take the engine alone, after all users, and save."""
        try:
            grant = await self.gate.acquire(work="background", exclusive=True)
        except BioproxyError as error:  # the shutdown, which saves by itself
            log.debug("nothing is saved: %s", error.message)
            return
        try:
            await self.save_idle(grant)
            await self.actions.fork()
        finally:
            grant.release()

    async def save_idle(self, grant: Grant) -> int:
        """Save what grew and pays, under an exclusive grant, until a user waits; how many were saved."""
        if self.template.dated:
            await self.template.refresh()
        places, count = self.growing(), 0
        if not places or not grant.try_exclusive():
            return 0
        for number, place in enumerate(places):
            if count and self.gate.user_waiting:
                self.grown.set()
                break
            if number and not self.actions.saving:  # what the last save ran into is in the way of all
                break
            count += await self.actions.save(place, limit=self.config.save_timeout)
            place.since = time.monotonic()
        return count

    # before a stop (rule 20)

    async def save_before_stop(self, *, limit: float) -> float:
        """Save what the engine's stop would lose, within `limit` seconds; the seconds that it took.

        What was written becomes a snapshot while the next engine starts; the engine need not live any more. Raises
        nothing of gate or engine.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        if limit <= 0 or not self.growing():
            return 0.0
        try:
            async with asyncio.timeout_at(started + limit):
                grant = await self.gate.acquire(work="background", exclusive=True, last=True)
        except (TimeoutError, BioproxyError) as error:
            log.warning("what is resident was not saved: %s", in_words(error, late=BUSY))
            return clock() - started
        try:
            await self.save_until(started + limit)
        finally:
            grant.release()
        return clock() - started

    async def save_until(self, end: float) -> None:
        """Save one slot after the other, what is most to compute again first, as long as it can end before `end`.

        What would have to be brought into a slot before comes last.
        """
        clock = asyncio.get_running_loop().time
        await self.template.refresh()
        for place in sorted(self.growing(), key=lambda one: (one.parked, -self.decisions.unsaved(one))):
            left = end - clock()
            if self.decisions.doubt or left <= 0:
                return
            if (needed := self.decisions.seconds_to_save(place)) > left:
                log.warning("%d tokens were not saved: that takes %.1f s, %.1f s are left", place.tokens, needed, left)
                continue
            await self.actions.save(place, limit=left)

    # after a start (rule 21)

    async def bring_back(self, wants: Sequence[Want]) -> float:
        """Restore for the requests that wait, after `attached` and before the gate opens; the seconds that it took.

        Does nothing if the slots may hold something already, or under policy `always`, which restores by itself.
        What was saved before the stop and is not quite a snapshot yet is waited for: it is what these requests want.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        fit = [self.template.read(want) for want in wants if not self.residents.scales(want.lora)[1]]
        if fit and self.decisions.restoring and not self.decisions.literal:
            await self.saver.settle()
            free = [slot for slot in self.residents.slots if slot.empty and slot.slot is not None]
            for place, match in zip(free, self.wanted(fit, len(free)), strict=False):
                if self.decisions.doubt:
                    break
                await aio.shielded(self.actions.bring(match, place, place.slot or 0))
            await self.actions.fork()
        return clock() - started

    def wanted(self, wants: Sequence[Want], most: int) -> list[Match]:
        """What shall be restored, `most` at most and no more than fits.

        Each snapshot once; then once more for each further request that wants it, unless the server moves what is idle
        into its RAM cache.
        """
        asked = wants[: 1 if len(self.residents.slots) == 1 else LOOKED_AT * most]
        matches = [match for want in asked if (match := self.decisions.best(want, 0)) is not None]
        once, again = list[Match](), list[Match]()
        for match in matches:
            seen = any(match.snapshot.id == other.snapshot.id for other in once)
            (again if seen else once).append(match)
        found: list[Match] = []
        room = self.decisions.room
        for match in [*once, *(() if self.residents.parks else again)][:most]:
            room -= match.snapshot.tokens
            if found and room < 0:
                break
            found.append(match)
        return found

    # while no request comes (rule 21)

    async def fill_slots(self) -> None:
        while True:
            await self.emptied.wait()
            self.emptied.clear()
            await self.fill()

    async def fill(self) -> int:
        """Restore into empty slots what will most likely be wanted next, one after the other; how many.

        One model of the program at a time. It gives way to requests: what takes long (comparing the file with what
        was written) is done before the grant, and a busy engine is left alone.
        """
        count, unfit = 0, set[str]()
        await self.saver.settle()
        async with self.tenant.shelves.filling:
            while (found := self.likely(unfit)) is not None:
                place, match = found
                if await self.restorer.verified(match.snapshot):
                    unfit.add(match.snapshot.id)
                elif await self.fill_one(place, match):
                    count += 1
                else:
                    break
        return count

    async def fill_one(self, place: Resident, match: Match) -> bool:
        """Restore `match` into `place` under a grant; False if a request comes, or it is not wanted any more."""
        try:
            async with asyncio.timeout(FREE):
                grant = await self.gate.acquire(work="background", exclusive=True)
        except (TimeoutError, BioproxyError) as error:
            log.debug("nothing is restored: %s", in_words(error, late=BUSY))
            return False
        try:
            current = usable(match.snapshot, self.tenant.scope)
            if not self.gate.user_waiting and place.empty and current and self.decisions.restoring:
                await aio.shielded(self.actions.bring(match, place, place.slot or 0))
            await self.actions.fork()
        finally:
            grant.release()
        return place.saved == match.snapshot.id

    def likely(self, unfit: Container[str] = ()) -> tuple[Resident, Match] | None:
        """An empty slot and what should be in it. If requests clear idle slots, one of them is enough.

        `unfit`: snapshots that cannot be used now.
        """
        slots = self.residents.slots
        empty = [slot for slot in slots if slot.empty and slot.slot is not None]
        enough = self.residents.parks and len(empty) < len(slots)
        if not empty or enough or self.decisions.literal or not self.decisions.restoring:
            return None
        room = self.decisions.room - sum(slot.tokens for slot in slots)
        largest = LONGEST * self.tenant.knowledge.speeds.restore
        for match in self.decisions.likely():
            snapshot = match.snapshot
            held = snapshot.end in self.residents.where
            if not held and snapshot.id not in unfit and snapshot.tokens <= room and snapshot.size <= largest:
                return empty[0], match
        return None

    # housekeeping

    async def keep_order(self) -> None:
        while True:
            await asyncio.sleep(self.tick)
            await self.look_after()

    async def look_after(self) -> None:
        """The folder's order, and whether what was in the way is gone."""
        pause = self.saver.pause
        await self.attaching.retry()
        if self.likely() is not None:
            self.emptied.set()
        if self.attaching.to_try_out and not self.decisions.doubt:
            await self.try_out()
        elif pause and pause.due:
            await self.saver.try_again()
        if not pause:
            try:
                await self.tenant.shelf.look_after()
            except FolderError as error:
                pause.enter("folder", error.message)
            if self.growing():
                self.grown.set()
        if self.tenant.shelves.quiet:
            await scrub.reread_oldest(self.tenant.shelf, go_on=lambda: self.tenant.shelves.quiet)

    async def try_out(self) -> None:
        """What could not be tried when we attached, because a client was using the engine."""
        try:
            grant = await self.gate.acquire(work="background", exclusive=True)
        except BioproxyError as error:  # the shutdown
            log.debug("other builds' snapshots were not tried: %s", error.message)
            return
        cut = True
        try:
            await aio.shielded(self.attaching.try_out(fresh=False))
            await self.actions.fork()
            cut = False
        except BioproxyError as error:
            log.info("the engine could not be tried out: %s", error.message)
        finally:
            grant.release(cut=cut)
