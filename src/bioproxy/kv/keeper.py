"""The keeper of one engine's KV cache: what is resident, what the disk holds, and what is done about a request.

It owns two accounts, the slots' content (`residents`) and the snapshots (`store`), and nobody else changes either. All
of it happens on the loop's thread; the one lock for slot actions is the gate's exclusive grant, so there is none here.
What to do is decided in decisions.py, done in actions.py, learnt about the engine in attaching.py.

A keeper is made once for each model and outlives its engine's processes: it is attached to one after the other, and
what it learnt stays. The snapshot folder may be shared with other models' keepers (shelves.py).

The way of a request: `want` names its prompt by hashes, `prepare` brings back what pays (and saves what that would
displace), the engine answers, `served` takes down what the slot holds then and what the restore was worth. `prepare`
has nothing to do nearly always, and says so within microseconds. Where it acts, it acts shielded: a client that leaves
in the middle of a slot action cannot leave us without knowing what the slot holds.

The way of a swap: `save_before_stop`, `gone`; then for the next process `attached`, `bring_back`, and only then the
gate is opened (swap.py).

What can end early, and what is left then:
- a save that is cut leaves a temporary file, removed at once or at the next start (files.py);
- a slot action that timed out leaves slots of unknown content, and no slot action until a response has ended (rule 4);
- a request that was cut off leaves at least what it had in common with what was there (resident.py).

Nothing in here ever fails a user's request. The only exception is a slot that must be erased first: with `kv.isolate:
strict`, and where a restored slot would give wrong answers to a request that leaves it early.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.engines import gguf
from bioproxy.engines.llama import EngineFacts, Llama, Timings
from bioproxy.errors import BioproxyError
from bioproxy.events import Bus, SnapshotMissing
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv import files
from bioproxy.kv.actions import Actions
from bioproxy.kv.attaching import Attaching
from bioproxy.kv.chain import chain, common
from bioproxy.kv.chat_template import ChatTemplate
from bioproxy.kv.decisions import Decisions, Findings
from bioproxy.kv.fingerprint import Identify
from bioproxy.kv.folder import FolderError
from bioproxy.kv.index import usable
from bioproxy.kv.moments import TICK, IdleSaver, Swap
from bioproxy.kv.policy import SLACK, Speeds
from bioproxy.kv.resident import Prepared, Resident, Residents, Want
from bioproxy.kv.restorer import Restorer, Verdicts
from bioproxy.kv.saver import FIRST_RETRY, Pause, Saver
from bioproxy.kv.shelf import Versions
from bioproxy.kv.shelves import Shelves, Tenant
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.statistics import KvStatistics, SnapshotStatistics, of_snapshots, statistics
from bioproxy.prompt import Head, Piece

__all__ = ["Keeper", "KvStatistics", "Prepared", "Snapshot", "SnapshotStatistics", "Want"]

log = logging.getLogger(__name__)

UNEXPECTED = "something unexpected happened when the engine was looked at: no snapshots; see the log"


class Keeper:
    """The KV cache of one engine, on disk and in its slots.

    `shelves`: the program's snapshot folders; without them this keeper has its own. `everyone` tells the group of
    everybody who may ask at present, None if there are several (decisions.py), `versions` what each template says now.
    `identify` digests a model file; `model` is whose it is, for the log; `step` hears the steps of each commit; `tick`
    and `first_retry` are seconds.
    """

    def __init__(
        self,
        *,
        config: Kv,
        bus: Bus,
        llama: Llama,
        shelves: Shelves | None = None,
        everyone: Callable[[], str | None] = lambda: "",
        versions: Versions = dict,
        identify: Identify = gguf.identity,
        model: str = "",
        step: Callable[[str], None] = files.quiet,
        tick: float = TICK,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self.config = config
        self.bus = bus
        self.llama = llama
        self.clock = time.monotonic
        self.tenant = Tenant(config=config, bus=bus, shelves=shelves, versions=versions, step=step)
        self.pause = Pause(bus, self.clock, model=model, folder=lambda: self.tenant.path, first_retry=first_retry)
        self.saver = Saver(llama, self.tenant, self.pause)
        self.restorer = Restorer(llama, self.tenant)
        self.residents = Residents()
        self.decisions = Decisions(config, self.tenant, everyone=everyone)
        self.actions = Actions(llama, self.saver, self.restorer, self.residents, self.decisions)
        self.attaching = Attaching(
            config=config,
            engine=llama,
            tenant=self.tenant,
            saver=self.saver,
            restorer=self.restorer,
            decisions=self.decisions,
            residents=self.residents,
            identify=identify,
            model=model,
        )
        self.template = ChatTemplate(llama, self.tenant, self.residents)
        self.template.on_change = self.changed
        self.template.awake = lambda: self.clock() - self.last <= self.attaching.sleeps_after
        self.on_new_prompts: Callable[[], None] = lambda: None
        self.verdicts = Verdicts(self.tenant, self.decisions, self.actions.count, self.attaching.say)
        self.swap = Swap(
            actions=self.actions,
            decisions=self.decisions,
            residents=self.residents,
            growing=self.growing,
            restoring=lambda: self.restoring,
        )
        self.idle = IdleSaver(
            save_after=config.save_after,
            save_every=config.save_every,
            growing=self.growing,
            save=self.save_idle,
            fill=self.swap.fill,
            look_after=self.look_after,
            tick=tick,
        )
        self.last = self.clock()

    @property
    def watchers(self) -> set[Callable[[], None]]:
        """Who is called when saving goes on that was paused."""
        return self.pause.watchers

    # the engine

    async def attached(self, facts: EngineFacts, *, alone: bool = True) -> None:
        """The engine is up and nobody is let at it yet: learn what it is and open its folder. Never raises.

        `alone` False: a request that was granted before may still reach it, so no slot action now (kv-rule 4).
        """
        self.actions.doubt = ""
        self.pause.renewed()
        try:
            await self.template.meet(facts)  # first, or yesterday's snapshots would be brought back
            await self.attaching.run(facts, alone=alone)
        except Exception:
            log.exception("the engine is served without snapshots: what it can do was not found out")
            self.decisions.findings = Findings(restores=False, saves=False)
            self.attaching.fault = UNEXPECTED
        self.last = self.clock()
        self.idle.emptied.set()

    def gone(self, reason: str) -> None:
        """The engine went away, and with it all that was resident."""
        log.debug("what is resident is gone: %s", reason)
        self.actions.forget("ended")
        self.attaching.facts = None

    def changed(self) -> None:
        """The chat template makes other prompts than before, or than we thought."""
        self.actions.forget("unknown")
        self.on_new_prompts()

    def unknown(self, reason: str) -> None:
        """Somebody else used a slot: nobody knows what is resident."""
        log.debug("what is resident is unknown: %s", reason)
        self.actions.forget("unknown")

    @property
    def restoring(self) -> bool:
        """Whether snapshots can be restored here and now."""
        return self.decisions.findings.restores and self.attaching.usable and not self.actions.doubt

    @property
    def saving(self) -> bool:
        """Whether snapshots can be written here and now."""
        known = self.decisions.findings.saves and self.attaching.usable
        return known and self.pause.due and not self.actions.doubt

    @property
    def speeds(self) -> Speeds:
        """What was measured of this engine."""
        return self.tenant.knowledge.speeds

    # the way of a request

    def want(
        self,
        pieces: Sequence[Piece],
        *,
        group: str = "",
        prefix: str = "",
        version: str = "",
        store: bool = True,
        head: Head | None = None,
        lora: bytes = b"",
        again: tuple[str, bytes] | None = None,
    ) -> Want:
        """Name a prompt by the hashes of its beginnings (what that costs: chain.py). The rest stands in it as it is."""
        cuts = chain("", pieces)
        shape, fields = (head.shape, head.fields) if head is not None else ("", {})
        return Want(
            cuts,
            cuts[-1].offset if cuts else 0,
            group,
            prefix,
            version,
            store,
            shape=shape,
            fields=fields,
            lora=lora,
            again=again,
        )

    def extends(self, want: object) -> bool:
        """Whether a request goes on from what a slot holds (for the gate's order)."""
        return isinstance(want, Want) and self.residents.extends(self.template.read(want).cuts)

    def holds(self, want: Want) -> bool:
        """Whether a slot holds all of `want`."""
        end = self.template.read(want).end
        return bool(end) and any(end in slot.digests for slot in self.residents.slots)

    def has_snapshot(self, want: Want) -> Snapshot | None:
        """The good snapshot of exactly this prompt prefix; a conversation's is none, for it does not end there."""
        want = self.template.read(want)
        if not want.cuts:
            return None
        fingerprint = self.tenant.scope.fingerprint
        found = self.tenant.shelf.index.same(want.cuts, fingerprint=fingerprint, template=True)
        found += [
            one for one in self.tenant.shelf.committing.values() if one.template and one.end == want.cuts[-1].digest
        ]
        return next((one for one in found if usable(one, self.tenant.scope)), None)

    async def prepare(self, want: Want, grant: Grant) -> Prepared:
        """Make the slot fit for `want`, under its grant: restore what pays, save first what that displaces.

        Raises only if a slot that must be erased cannot be. Cancelling it waits for a slot action under way.
        """
        if self.clock() - self.last > self.attaching.sleeps_after:
            self.actions.forget("ended")  # the engine slept, and dropped everything
        await self.template.refresh()
        want = self.template.read(want)
        place, position = self.residents.choose(want.cuts, want.size)
        lora, crossing = self.residents.scales(want.lora)
        prepared = Prepared(place=place, want=want, unsure=crossing or bool(want.doubts))
        if position:
            prepared.status = "resident"
            prepared.expected = place.tokens_at(want.cuts[position - 1].digest)
        at_risk = self.residents.endangered(place)
        plan = self.decisions.plan(
            want, place, position, restoring=self.restoring and not crossing, saving=self.saving, endangered=at_risk
        )
        if plan is not None:
            if plan.match is not None:
                prepared.question = plan.match.question(want.end)
            await self.actions.carry_out(plan, grant, prepared)
            position = common(want.cuts, place.digests)
            if prepared.status == "resident" and not position:
                prepared.status, prepared.expected = "", 0
        if want.prefix and not (want.background or position or prepared.status) and self.restoring:
            self.bus.publish(SnapshotMissing(prefix=want.prefix))
        shared = want.cuts[position - 1].digest if position else b""
        if position:
            prepared.reach = want.cuts[position].offset if position < len(want.cuts) else want.size
        self.verdicts.expect(place, shared, prepared, end=want.end)
        if not position or place.parked:
            self.residents.somewhere(place)
        self.residents.take(place, shared)
        place.lora, place.mixed = lora, place.mixed or crossing
        return prepared

    def served(self, want: Want, prepared: Prepared, timings: Timings | None, *, complete: bool) -> None:
        """The answer is out, or ended early (`complete` False): take down what the slot holds now.

        Called while the grant is still held. Never raises, never waits.
        """
        self.last = self.clock()
        place = prepared.place or self.residents.choose(want.cuts, want.size)[0]
        place.busy = False
        timings = timings if complete and timings is not None else Timings()
        read = self.template.read(want)
        self.template.settle(prepared, timings.cached, lambda: self.verdicts.judge(prepared, timings))
        if not complete:
            return
        if read.end != (prepared.want or read).end:
            place.clear(empty=False)  # it was rendered on another day, or is another prompt than we thought
            return
        want = read
        self.actions.doubt = ""
        if want.prefix:
            self.tenant.asked(want.cuts)
        if timings.evaluated is not None and timings.prefill is not None:
            self.tenant.knowledge.evaluated(timings.evaluated, timings.prefill)
        self.note(place, want, prepared, timings)

    def note(self, place: Resident, want: Want, prepared: Prepared, timings: Timings) -> None:
        """A whole answer leaves its prompt and itself in the slot, without the last sampled token."""
        since = place.since if place.since and common(want.cuts, place.digests) else self.clock()
        prompt = 0
        if timings.cached is not None and timings.evaluated is not None:
            prompt = timings.cached + timings.evaluated
        tokens = prompt + max(0, (timings.generated or 1) - 1)
        source, held = place.source  # what came from the server's RAM cache instead of the slot is not the snapshot's
        reach = prompt * prepared.reach // max(1, want.size)
        held = min(held, timings.cached or 0, reach)
        mixed = place.mixed or (timings.cached or 0) > max(reach, SLACK)  # more than we can tell the scales of
        place.fill(want.cuts, prompt=prompt, tokens=tokens, group=want.group, prefix=want.prefix, version=want.version)
        place.source = (source, held) if held else ("", 0)
        place.day, place.doubts = want.day, want.doubts
        place.store = want.store
        place.since = since
        if self.residents.adapted:
            place.mixed = mixed and timings.cached != 0
            place.whole = place.whole and not place.mixed
        place.again = want.again if self.residents.memory and not self.residents.adapted else None
        self.residents.goes_on(place.digests)
        if timings.slot is not None:
            self.residents.found(place, timings.slot)
        if place.whole and place.store:
            self.idle.grown.set()

    # saving

    async def keep(self, want: Want, tokens: int, grant: Grant, *, seconds: float) -> bool:
        """Save the template's prompt prefix that is resident now (`tokens` long, `seconds` of prefill); rule 14.

        Under an exclusive grant, right after exactly `want` was evaluated. False: it is not on disk, and the log or
        `/status` says why.
        """
        await self.template.refresh()
        want = self.template.read(want)
        if self.has_snapshot(want) is not None:
            return True
        if not self.saving or not self.decisions.worth_keeping(want, tokens, seconds) or not grant.try_exclusive():
            return False
        place, _ = self.residents.best(want.cuts)
        if not want.cuts or place.end != want.end or place.tokens != tokens or not place.savable:
            log.debug("%s: the slot holds something else than the prompt prefix", want.prefix)
            return False
        place.shared = True
        return await self.actions.save(place, template=True)

    async def save_idle(self, grant: Grant) -> int:
        """Save what grew and pays, under an exclusive grant, until somebody waits; how many were saved."""
        await self.template.refresh()
        if not self.growing() or not grant.try_exclusive():
            return 0
        count = 0
        for place in self.growing():
            if count and self.idle.gate is not None and self.idle.gate.user_waiting:
                self.idle.grown.set()
                break
            if self.saving:
                count += await self.actions.save(place, limit=self.config.save_timeout)
                place.since = self.clock()
        return count

    def growing(self) -> list[Resident]:
        """What is worth a save, in slots first, then in the engine's RAM cache, from where it can be brought back."""
        if not self.saving:
            return []
        everything = [one for one in self.residents.slots if one.savable]
        if self.residents.memory:
            everything += [one for one in (*self.residents.slots, *self.residents.parked) if one.recallable]
        return [one for one in everything if self.decisions.worth_saving(one, self.decisions.unsaved(one))]

    async def save_before_stop(self, who: Grant | Gate, *, limit: float) -> float:
        """Save what the engine's stop would lose, within `limit` seconds; the seconds that it took (rule 20).

        `who`: an exclusive grant, or the gate to get one from. What was written becomes a snapshot while the next
        engine starts; the engine need not live any more.
        """
        if self.growing():
            await self.template.refresh()
        return await self.swap.save(who, limit=limit)

    async def bring_back(self, wants: Sequence[Want] = ()) -> float:
        """Restore what the waiting requests want, after `attached` and before the gate opens; the seconds (rule 21)."""
        fit = [self.template.read(want) for want in wants if not self.residents.scales(want.lora)[1]]
        return await self.swap.bring_back(fit) if fit or not wants else 0.0

    async def conclude(self, want: Want, grant: Grant) -> float:
        """Policy `always`: save what the answer to a templated request left; the seconds that took. Else at once 0.

        Called after `served` and before the grant is given back.
        """
        place, usable = self.residents.slots[0], self.decisions.findings.diverging
        if not (self.decisions.literal and usable and want.prefix and place.savable and self.saving):
            return 0.0
        started = self.clock()
        if await self.actions.alone(grant):
            try:
                await self.actions.save(place)
            finally:
                self.actions.done(grant)
        return self.clock() - started

    # the service

    def bind_gate(self, gate: Gate) -> None:
        """Tell where grants come from; without a gate nothing is saved when idle."""
        self.idle.gate = gate

    async def run(self) -> None:
        """Idle saves and housekeeping, until cancelled (a guarded service)."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.idle.run(), name="idle saves and housekeeping")
            tasks.create_task(self.template.run(), name="chat template")

    async def look_after(self) -> None:
        """Housekeeping: the folder's order, and whether what was in the way is gone."""
        await self.attaching.retry()
        if self.swap.likely() is not None:
            self.idle.emptied.set()
        if self.idle.gate is not None and self.attaching.to_try_out and not self.actions.doubt:
            await self.try_out(self.idle.gate)
        elif self.pause and self.pause.due:
            await self.saver.try_again()
        if not self.pause:
            try:
                await self.tenant.shelf.look_after()
            except FolderError as error:
                self.pause.enter("folder", error.message)
            if self.growing():
                self.idle.grown.set()

    async def try_out(self, gate: Gate) -> None:
        """What could not be tried when we attached, because somebody was using the engine."""
        try:
            grant = await gate.acquire(work="background", exclusive=True)
        except BioproxyError as error:  # the shutdown
            log.debug("other builds' snapshots were not tried: %s", error.message)
            return
        cut = True
        try:
            await aio.shielded(self.attaching.try_out(fresh=False))
            cut = False
        except BioproxyError as error:
            log.info("the engine could not be tried out: %s", error.message)
        finally:
            grant.release(cut=cut)

    async def close(self, *, deadline: float = 10.0) -> None:
        """Finish what is being written (`deadline` seconds at most) and give the folder back."""
        await self.saver.settle(deadline)
        await aio.shielded(self.tenant.close())

    # looking

    def statistics(self) -> KvStatistics:
        """Everything at this moment; no snapshot's content, no text."""
        return statistics(self)

    def snapshots(self) -> tuple[SnapshotStatistics, ...]:
        """The same with the reason why one is not used, without its chain; for people."""
        return of_snapshots(self)

    def list(self) -> tuple[Snapshot, ...]:
        """The snapshots of this engine (without `shelves`: all in its folder), the last used first."""
        return self.tenant.listed()
