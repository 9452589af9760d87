"""Doing what was decided: slot actions under an exclusive grant, to their end, with the accounts kept straight.

Everything here is shielded: a client may leave in the middle, the action goes on and its outcome is taken down, and
only then the cancellation goes on. A slot action that was given up half-way would leave us guessing what the slot
holds.

If an action timed out, or the engine went away in it, what the slots hold is in doubt (`decisions.doubt`). From then on
no slot action runs until a response has ended (kv-rule 4), for a deferred one inside the server could strike at any
time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence

from bioproxy import aio
from bioproxy.engines.answers import Timings
from bioproxy.engines.facts import SlotView
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineRefused, EngineUnavailable, in_words
from bioproxy.gate.gate import Grant
from bioproxy.kv import policy
from bioproxy.kv.decisions import Decisions, Plan
from bioproxy.kv.engine import AT_LEAST, POKE, SlotActionTimeout, limited, slots_now
from bioproxy.kv.index import Match, owner, usable
from bioproxy.kv.resident import KEPT, STANDING, Brought, Prepared, Resident, Residents, State, Want
from bioproxy.kv.restorer import Restorer
from bioproxy.kv.saver import Saver
from bioproxy.kv.snapshot import Pin

log = logging.getLogger(__name__)

STRICT_WAIT = 30.0  # seconds that a request waits for an erased slot
LOOK = 0.5  # seconds that a user may wait for `/slots`
RECALL = 1.0  # seconds for a request that is asked again, beside what moving its state takes
ERASE_FIRST = "the slot has to be erased before this request, and an earlier one is not over yet; try again"
PARKED = 32  # requests that are kept in memory, to be asked again
MOMENT = 0.02  # seconds in which requests that go on from one context are taken to have come together
LOOKED_AT = 8  # waiting requests for each free slot that are looked at
FOR_OTHERS = 1.0  # seconds of restores for others that whoever has the engine waits for
ROOM = 0.5  # share of the RAM cache that is counted on: checkpoints lie there, too, and what we did not see


class Actions:
    """The slot actions of one engine. `lost` counts conversations by why they were not saved.

    The reasons: `busy` (other requests ran, so there could be no slot action, and the engine keeps no copy), `slow` (a
    user would have waited too long for it), `failed`, `forgotten` (the engine's RAM cache did not have it any more),
    `ended` (the engine's process did), `unknown` (something else used the slot: a request that is not ours, or that
    the engine sent there and we thought elsewhere).
    """

    def __init__(
        self, engine: Llama, saver: Saver, restorer: Restorer, residents: Residents, decisions: Decisions
    ) -> None:
        self.engine = engine
        self.saver = saver
        self.restorer = restorer
        self.residents = residents
        self.decisions = decisions
        self.lost: Counter[str] = Counter()
        self.waiting: Callable[[], Sequence[Want]] = tuple  # what the requests want that wait for the engine

    @property
    def saving(self) -> bool:
        return self.decisions.findings.saves and self.decisions.able and self.saver.pause.due

    def doubted(self, reason: str) -> None:
        """After a slot action: if there is a `reason` for it, what the slots hold is not known any more."""
        if reason:
            log.warning("no slot action until a response has ended: %s", reason)
            self.decisions.doubt = reason
            self.forget("unknown")

    # what requests need

    async def carry_out(self, plan: Plan, grant: Grant, prepared: Prepared) -> None:
        """Do what was planned. If we cannot have the engine alone, go without; an erase was promised, and waits for it.

        Raises EngineUnavailable (503) if the slot cannot be erased. What goes wrong otherwise in a way that was not
        expected is logged, and the request goes on.
        """
        async with grant.alone(wait=STRICT_WAIT if plan.erase else 0.0) as alone:
            if not alone:
                self.go_without(plan, prepared)
                return
            try:
                await aio.shielded(self.act(plan, prepared))
                await self.fork(plan.place)
            except BioproxyError:
                raise
            except Exception as error:
                log.exception("a request is served without its snapshot")
                self.forget("unknown")
                prepared.status, prepared.expected, prepared.reason = "failed", 0, f"unexpected: {in_words(error)}"
                if plan.erase:
                    raise EngineUnavailable(f"the slot could not be erased: {in_words(error)}", status=503) from error

    def go_without(self, plan: Plan, prepared: Prepared) -> None:
        """Other requests are at work, so there is no slot action."""
        if plan.erase:
            raise EngineUnavailable(ERASE_FIRST, status=503, retry_after=5)
        self.displace(plan, "busy")
        if plan.match is not None:
            self.restorer.restores["skipped"] += 1
            prepared.status = prepared.status or "skipped"
            prepared.reason = "other requests are running, or one that was cut off is not over yet"

    async def act(self, plan: Plan, prepared: Prepared) -> None:
        """The slot actions, in the order that loses nothing: save, erase, restore."""
        clock = asyncio.get_running_loop().time
        started = clock()
        saved = [await self.save(place) for place in plan.saves]
        prepared.save_seconds += clock() - started if saved else 0.0
        prepared.kept = sum(place.tokens for place, done in zip(plan.saves, saved, strict=True) if done)
        if not (plan.save and saved[0]):
            self.displace(plan, "failed" if plan.save else "slow")
        if plan.erase:
            await self.erase(plan.place)
            prepared.status, prepared.expected = "", 0
        if plan.match is not None and not self.decisions.doubt:
            unsaved = self.decisions.unsaved(plan.place)
            slot = await self.slot_for(plan.place)
            if await self.restorer.restore(plan.match, plan.place, slot, prepared, unsaved=unsaved):
                self.residents.found(plan.place, slot)
            self.doubted(self.restorer.uncertain)
        if (match := plan.fork or plan.match) is not None and len(self.residents.slots) > 1:
            await self.spread(match, plan.place, ahead=plan.fork is not None)

    async def erase(self, place: Resident) -> None:
        """Leave nothing in `place`; with several slots nothing in any, for which one the server takes is its choice.

        An engine without slot actions cannot erase: there a prompt of one token takes the content's place, of which the
        engine keeps a copy only if it has a RAM cache.
        """
        facts, slots = self.decisions.facts, self.residents.slots
        poked = len(slots) == 1 and facts is not None and not facts.capabilities.slot_actions
        for slot in range(len(slots)):
            work = self.engine.prefill(POKE, cache_prompt=False) if poked else self.engine.erase(slot)
            await limited(work, seconds=AT_LEAST, what="erasing a slot")
        if len(slots) > 1:
            self.forget("erased")
            self.residents.clear(empty=True)
        place.clear(empty=True)

    async def spread(self, match: Match, place: Resident | None, *, ahead: bool) -> None:
        """Bring what a request in `place` goes on from into other slots, for the requests that wait for the same.

        Once they run there can be no slot action, and each would evaluate it anew. `ahead`: it is a context, from which
        several begin: those that come at the same moment are waited for, and empty slots get it in any case. What a
        slot loses is on disk, or not worth it.
        """
        if self.residents.parks or not self.decisions.restoring:
            return
        if ahead:
            await asyncio.sleep(MOMENT)
        end, tried = match.snapshot.end, set[Resident | None]()
        held = sum(one.end == end for one in self.residents.slots if one is not place and one.state in STANDING)
        while True:
            wanted, taken = self.needing(match, place)
            other = self.spare(match, taken | tried)
            if other is None or (held >= wanted and not (ahead and other.empty)):
                return
            tried.add(other)
            if (slot := await self.number_of(other)) is None:
                continue
            if not await self.bring(match, other, slot, unsaved=self.decisions.unsaved(other)):
                return
            held += 1

    async def fork(self, place: Resident | None = None) -> None:
        """Give slots to the requests that wait: what they go on from, but for `place`, which is somebody's.

        The last thing before an exclusive grant ends: then they are all let in at once, and none of them has the engine
        alone. Nothing is awaited after the last look, so nobody comes between it and that end.
        """
        if len(self.residents.slots) == 1 or self.residents.parks or not self.decisions.restoring:
            return
        if self.decisions.erasing:
            return  # what is another group's would be in reach of the request at hand
        clock, tried = asyncio.get_running_loop().time, set[str]()
        ends = clock() + FOR_OTHERS
        while True:
            if (context := self.awaited(tried, place)) is not None:
                tried.add(context.snapshot.id)
                await aio.shielded(self.spread(context, place, ahead=True))
            elif (found := self.missed(tried, place, ends - clock())) is not None:
                other, match = found
                tried.add(match.snapshot.id)
                if (slot := await self.number_of(other)) is not None:
                    await aio.shielded(self.bring(match, other, slot, unsaved=self.decisions.unsaved(other)))
            else:
                return

    def next(self) -> Sequence[Want]:
        """What the requests want that may be let in next; of however many wait behind them, none is weighed."""
        return self.waiting()[: LOOKED_AT * len(self.residents.slots)]

    def missed(self, tried: Container[str], place: Resident | None, seconds: float) -> tuple[Resident, Match] | None:
        """A slot that nobody goes on from, and what a waiting request would have to evaluate without it.

        Within `seconds`: whoever has the engine now waits for it. A file that was not read whole since our start takes
        longer than that (restorer.py), so one may end late, and is the last.
        """
        taken, matches, largest = {place}, list[Match](), seconds * self.decisions.tenant.knowledge.speeds.restore
        for want in self.next() if self.decisions.restoring else ():
            chosen, shared = self.residents.choose(want.cuts, want.size)
            match = None
            if not (want.background or self.residents.scales(want.lora)[1]):
                match = self.decisions.best(want, 0 if chosen in taken else shared)
            if match is not None and match.snapshot.id not in tried and match.snapshot.size <= largest:
                matches.append(match)
            elif shared:
                taken.add(chosen)
        for match in matches:
            if (other := self.spare(match, taken)) is not None:
                return other, match
        return None

    def spare(self, match: Match, taken: Container[Resident | None]) -> Resident | None:
        """A slot with room for a snapshot that is not `taken` and holds nothing worth a save; an empty one first."""
        room = self.decisions.room - sum(one.tokens for one in self.residents.slots) - match.snapshot.tokens
        fit = [
            one
            for one in self.residents.order
            if one.state in STANDING
            and one not in taken
            and one.end != match.snapshot.end
            and one.tokens + room >= 0
            and not self.decisions.worth_saving(one, self.decisions.unsaved(one))
        ]
        return min(fit, key=lambda one: not one.empty, default=None)

    def awaited(self, tried: set[str], place: Resident | None = None) -> Match | None:
        """A context that was not `tried`, for a waiting request of which no slot but `place` has more."""
        index, scope = self.decisions.tenant.shelf.index, self.decisions.tenant.scope
        looked_at = set(tried)
        for want in self.next() if index.named else ():
            for cut in want.cuts:
                for one in [index.snapshots[identity] for identity in index.named.get(cut.digest, ())]:
                    if one.id not in looked_at and usable(one, scope):
                        looked_at.add(one.id)
                        if self.needing(match := Match(one, one.end, exact=True), place)[0]:
                            return match
        return None

    def needing(self, match: Match, place: Resident | None) -> tuple[int, set[Resident | None]]:
        """How many waiting requests go on from a snapshot and find no more than it in a slot; the slots of the others.

        A slot belongs to the first that goes on from it, and `place` is somebody's already. So a conversation's next
        turn needs no copy of what it began with, and does not lose its slot to one.
        """
        mine, count, taken = owner(match.snapshot)[1], 0, {place}
        for want in self.next():
            at = (n for n, cut in enumerate(want.cuts, 1) if cut.digest == match.digest)
            position = next(at, 0) if mine in (None, want.group) else 0
            chosen, shared = self.residents.choose(want.cuts, want.size)
            if shared > position and chosen not in taken:
                taken.add(chosen)
            elif position:
                count += 1
        return count, taken

    async def bring(self, match: Match, place: Resident, slot: int, *, unsaved: int = 0) -> bool:
        """Restore a snapshot that no request has asked for yet; the first that uses it will judge it."""
        prepared = Prepared()
        done = await self.restorer.restore(match, place, slot, prepared, unsaved=unsaved)
        if done:
            self.residents.settle(place, slot)
            place.brought = Brought(match.snapshot, prepared.seconds)
        self.doubted(self.restorer.uncertain)
        return done

    async def save(
        self, place: Resident, *, template: bool = False, limit: float = 0.0, pins: tuple[Pin, ...] = ()
    ) -> bool:
        """Save `place` from the slot that holds it, to its end; False if that did not work or the slot is not known.

        With `pins` it is kept from the moment that it exists.
        """
        return await aio.shielded(self.save_it(place, template=template, limit=limit, pins=pins))

    async def save_it(self, place: Resident, *, template: bool, limit: float, pins: tuple[Pin, ...]) -> bool:
        if not (place.savable or place.recallable):  # whoever wanted it saved may have waited for the engine since
            return False
        found = await self.unpark(place) if place.parked else place
        slot = await self.holding(found) if found is not None else None
        if found is None or slot is None:
            return False
        saved = await self.saver.save(found, slot, template=template or found.shared, limit=limit, pins=pins)
        self.doubted(self.saver.uncertain)
        return saved

    # what slots held before

    def displace(self, plan: Plan, why: str) -> None:
        """What `plan.place` holds was not saved and is about to go: the server keeps a copy, or it is lost."""
        place = plan.place
        if not plan.displaces or not place.tokens:
            return
        if why != "busy" and (plan.erase or plan.match is not None):
            poked = policy.worth_poking(self.decisions.unsaved(place), self.decisions.tenant.knowledge.speeds)
            copied = poked and self.restorer.pokes and not plan.erase
        else:
            copied = place.tokens_at(plan.shared) < KEPT * place.tokens
        if place.again is not None and self.residents.memory and (place.parked or copied):
            if len(self.residents.parked) >= PARKED:
                self.lose(self.residents.parked[0], "forgotten")
            self.residents.park(place)
        else:
            self.lose(place, why)

    def lose(self, place: Resident, why: str) -> None:
        """A conversation that was worth a save will not get one."""
        log.info("%d tokens of a conversation were lost before they were saved: %s", place.tokens, why)
        self.lost[why] += 1
        place.again = None
        if place in self.residents.parked:
            self.residents.parked.remove(place)

    def forget(self, why: str) -> None:
        """What the slots and the RAM cache hold is not known any more: what was not saved is lost."""
        for place in (*self.residents.slots, *self.residents.parked):
            if place.store and self.decisions.worth_saving(place, self.decisions.unsaved(place)):
                self.lose(place, why)
        self.residents.clear(empty=False)

    async def unpark(self, place: Resident) -> Resident | None:
        """Let the server take `place` out of its RAM cache into a slot, by asking its request again; None: it is lost.

        A user may wait meanwhile, so a request that would have to be evaluated anew is not asked.
        """
        slot, position = self.residents.choose(place.cuts, place.cuts[-1].offset)
        shared = place.cuts[position - 1].digest if position else b""
        speeds, again = self.decisions.tenant.knowledge.speeds, place.again
        if again is None or not self.remembered(place, slot, shared):
            self.lose(place, "forgotten")
            return None
        if slot is not place and slot.savable and self.decisions.worth_saving(slot, self.decisions.unsaved(slot)):
            self.displace(Plan(slot, shared, displaces=True), "busy")
        parked = slot.parked
        self.residents.take(slot, shared)
        try:
            limit = RECALL + self.decisions.bytes_of(place) / speeds.restore
            timings = await limited(self.engine.again(*again), seconds=limit, what="asking a request again")
        except BioproxyError as error:
            if slot.state is State.CHANGING:
                slot.state = State.PART
            self.lose(place, "forgotten")
            if isinstance(error, SlotActionTimeout):  # the engine may be at it still, and at nothing else
                slot.clear(empty=False)
                self.decisions.doubt = error.message
            elif not isinstance(error, EngineRefused):
                self.doubted(error.message)
            return None
        if not policy.came_back(place.prompt, timings.cached or 0):
            self.residents.memory = 0.0  # it keeps less than we thought; the others are not tried
        return self.came_back(place, slot, timings, somewhere=parked or not position)

    def remembered(self, place: Resident, slot: Resident, shared: bytes) -> bool:
        """Whether the server's RAM cache should have `place`, and would look there before it takes `slot`."""
        since = self.residents.moved - place.moved + place.tokens
        kept = since * self.decisions.token_bytes() <= ROOM * self.residents.memory
        return kept and (slot is place or not slot.tokens or slot.tokens_at(shared) < KEPT * slot.tokens)

    def came_back(self, place: Resident, slot: Resident, timings: Timings, *, somewhere: bool) -> Resident:
        """`slot` holds the prompt of `place` now, without the answer to it."""
        known = timings.cached is not None and timings.evaluated is not None
        prompt = (timings.cached or 0) + (timings.evaluated or 0) if known else place.prompt
        since, place.again = place.since, None
        slot.fill(
            place.cuts, prompt=prompt, tokens=prompt, group=place.group, prefix=place.prefix, version=place.version
        )
        slot.since = since
        if somewhere:
            self.residents.somewhere(slot)
        self.residents.goes_on(slot.digests)
        return slot

    # which slot (rule 23)

    async def holding(self, place: Resident) -> int | None:
        """The slot that holds `place`: the only one, a known one, or one told by how much it holds; else None."""
        if len(self.residents.slots) == 1 or place.slot is not None:
            return place.slot or 0
        if not place.tokens or place.parked:
            return None
        views = [view for view in await self.look() if view.n_prompt_tokens]
        if not any(view.is_processing for view in views):
            self.correct({view.id: view.n_prompt_tokens or 0 for view in views})
        taken = self.residents.taken()
        others = [one for one in self.residents.slots if one.slot is None and one.tokens and not one.parked]
        return told_apart(place, others, [view for view in views if view.id not in taken])

    def correct(self, counts: Mapping[int, int]) -> None:
        """Forget what the slots' own counts of tokens disprove."""
        for one in self.residents.disproved(counts):
            if self.decisions.worth_saving(one, self.decisions.unsaved(one)):
                self.lose(one, "unknown")
            one.clear(empty=False)
            one.slot = None

    async def slot_for(self, place: Resident) -> int:
        """A slot to restore into: an empty one, else the one that holds `place`, else the first one.

        In the last case we do not know which conversation is overwritten, so all are forgotten but `place`. The engine
        is asked only if our own account names no empty slot: it reports a restored one as empty until a task ran.
        """
        if len(self.residents.slots) == 1:
            return 0
        known = [one.slot for one in (place, *self.residents.slots) if one.empty and one.slot is not None]
        if known:
            return known[0]
        empty = await self.empty_slot()
        if empty is not None:
            return empty
        slot = await self.holding(place)
        if slot is None:
            for other in self.residents.slots:
                if other is not place:
                    other.clear(empty=False)
        return slot or 0

    async def empty_slot(self) -> int | None:
        """A slot that the engine reports as empty. A restored one is, too, until a task ran in it."""
        if any(one.slot is None and one.brought is not None for one in self.residents.slots):
            return None
        taken = self.residents.taken()
        return next((view.id for view in await self.look() if view.id not in taken and not view.n_prompt_tokens), None)

    async def number_of(self, place: Resident) -> int | None:
        """The slot that `place` stands for, as far as it can be told."""
        if place.slot is not None:
            return place.slot
        return await self.empty_slot() if place.empty else await self.holding(place)

    async def look(self) -> list[SlotView]:
        """What `/slots` says now; [] if it does not answer in time."""
        try:
            async with asyncio.timeout(LOOK):
                return await slots_now(self.engine)
        except TimeoutError:
            log.debug("/slots was not answered in time")
        except BioproxyError as error:
            log.debug("cannot tell the slots apart: %s", error.message)
        return []


def overlapped(one: Resident, other: Resident) -> bool:
    """Whether a request in one slot began before the one in the other had ended."""
    return max(one.turn, other.turn) <= min(one.over, other.over)


def told_apart(place: Resident, others: Sequence[Resident], views: Sequence[SlotView]) -> int | None:
    """Which of `views` is `place`, one of `others`: by its count of tokens, or by the order in which they were used.

    The count may be off by one; what was generated last may or may not have been evaluated.
    """
    for off in (0, 1):
        found = [view for view in views if abs((view.n_prompt_tokens or 0) - place.tokens) <= off]
        alike = [other for other in others if abs(other.tokens - place.tokens) <= off]
        if len(found) == 1 == len(alike):
            return found[0].id
        if found and len(found) == len(alike) and all(view.id_task is not None for view in found):
            if any(other is not place and overlapped(place, other) for other in alike):
                return None  # the engine may have begun with either
            found.sort(key=lambda view: view.id_task or 0)
            return found[sorted(alike, key=lambda one: one.turn).index(place)].id
        if found:
            return None
    return None
