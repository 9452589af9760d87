"""What a swap does for the cache: save what would be lost before the engine stops, bring back what is wanted after.

Both stand in the way of a user, so both are short. The save has a limit, and what would not end in time is not begun; a
save that was cut leaves nothing, and its time is gone all the same. What makes a written file a snapshot (fsync,
rename, table) goes on while the next engine starts. Bringing back happens before the gate opens, when nobody is let at
the engine and its slots are empty: then nothing can be displaced, and a slot's number is known without asking.

Which snapshots: the best one for each request that waits, in their order; a one-slot engine gets the first one's only,
for the others would throw it out again. Nobody waits (a preload, a restart): the one that was used last of those that
whoever asks next may have, which is a template's if callers are of several groups. Where slots share one buffer, they
must all fit into it, for a refused restore empties the slot.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from bioproxy import aio
from bioproxy.errors import BioproxyError
from bioproxy.kv.actions import Actions
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.index import Match
from bioproxy.kv.resident import Brought, Resident, Residents
from bioproxy.kv.want import GrantLike, Prepared, StopGateLike, Want

log = logging.getLogger(__name__)

COMMITS = 3.0  # seconds that a start may wait for what was saved before the stop


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

    async def save(self, who: GrantLike | StopGateLike, *, limit: float) -> float:
        """Save what is resident, pays and is not on disk, within `limit` seconds; the seconds that it took.

        `who` is a grant that is exclusive or can be, or the gate to get one from. Raises nothing of gate or engine.
        """
        clock = asyncio.get_running_loop().time
        started = clock()
        if limit <= 0 or not self.growing():
            return 0.0
        if isinstance(who, StopGateLike):
            await self.save_through(who, started + limit)
        elif await self.actions.alone(who):
            try:
                await self.save_until(started + limit)
            finally:
                self.actions.done(who)
        else:
            log.warning("what is resident was not saved: other requests are running")
        return clock() - started

    async def save_through(self, gate: StopGateLike, end: float) -> None:
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
        if self.restoring() and not self.decisions.literal:
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
        matches = [self.decisions.best(want, 0) for want in asked] if wants else [self.decisions.latest()]
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
