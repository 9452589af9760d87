"""The keeper of one engine's KV cache: what is resident, what the disk holds, and what is done about a request.

It owns two accounts, the slots' content (`residents`) and the model's share of a snapshot folder (`tenant`); only the
parts below change them. All of it happens on the loop's thread; the one lock for slot actions is the gate's exclusive
grant, so there is none here. The parts form a tree, in which each knows only what stands below it:

    keeper          the way of a request, the life of an engine
      moments       what is done when no request asks: idle saves, before a stop, after a start, housekeeping
        attaching   what the engine is, and what is in the way
        template    what its chat template makes of a request beside the messages
        actions     slot actions to their end
          saver, restorer
            decisions   what to do, from numbers; it knows the tenant

A keeper is made once for each model and outlives its engine's processes: it is attached to one after the other, and
what it learnt stays. The snapshot folder may be shared with other models' keepers (shelves.py).

The way of a request: `want` names its prompt by hashes, `prepare` brings back what pays (and saves what that would
displace), the engine answers, `served` takes down what the slot holds then and what the restore was worth. `prepare`
has nothing to do nearly always, and says so at once. If it acts, it acts shielded: a client that leaves in the middle
of a slot action cannot leave us without knowing what the slot holds.

The way of a swap: `moments.save_before_stop`, `gone`; then for the next process `attached`, `moments.bring_back`, and
only then the gate is opened.

What can end early, and what is left then:
- a save that is cut leaves a temporary file, removed at once or at the next start (files.py);
- a slot action that timed out leaves slots of unknown content, and no slot action until a response has ended (rule 4);
- a request that was cut off leaves at least what it had in common with what was there (resident.py).

Nothing in here ever fails a user's request. The only exception is a slot that must be erased first: with `kv.isolate:
strict`, and if a restored slot would give wrong answers to a request that leaves it early.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.engines import gguf
from bioproxy.engines.answers import Timings
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.events import Bus, SnapshotMissing
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv import files
from bioproxy.kv.actions import Actions
from bioproxy.kv.attaching import Attaching
from bioproxy.kv.budget import Budgets
from bioproxy.kv.chain import chain, common
from bioproxy.kv.chat_template import ChatTemplate
from bioproxy.kv.decisions import Decisions, Findings
from bioproxy.kv.fingerprint import Identify, Traits
from bioproxy.kv.index import owner, usable
from bioproxy.kv.moments import TICK, Moments
from bioproxy.kv.policy import SLACK, Speeds
from bioproxy.kv.resident import AWAY, Prepared, Resident, Residents, State, Want
from bioproxy.kv.restorer import Restorer
from bioproxy.kv.saver import FIRST_RETRY, Pause, Saver
from bioproxy.kv.shelf import SPARED, Versions
from bioproxy.kv.shelves import Shelves, Tenant
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.statistics import KvStatistics, SnapshotStatistics, of_slot, of_snapshot
from bioproxy.prompt import Head, Piece

__all__ = ["Keeper", "KvStatistics", "Prepared", "Snapshot", "SnapshotStatistics", "Want"]

log = logging.getLogger(__name__)

UNEXPECTED = "something unexpected happened when the engine was looked at: no snapshots; see the log"


class Keeper:
    """The KV cache of one engine, on disk and in its slots.

    `gate`: where grants for our own work come from. `shelves`: the program's snapshot folders; without them this
    keeper has its own. `everyone` tells the group of all who may ask at present, None if there are several
    (decisions.py), `versions` what each template says now. `identify` digests a model file; `model` is its name for
    the log; `step` hears the steps of each commit; `tick` and `first_retry` are seconds.
    """

    def __init__(
        self,
        *,
        config: Kv,
        bus: Bus,
        llama: Llama,
        gate: Gate,
        shelves: Shelves | None = None,
        everyone: Callable[[], str | None] = lambda: "",
        versions: Versions = dict,
        budgets: Callable[[], Budgets] = Budgets,
        identify: Identify = gguf.identity,
        model: str = "",
        step: Callable[[str], None] = files.quiet,
        tick: float = TICK,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self.config = config
        self.bus = bus
        self.clock = time.monotonic
        self.tenant = Tenant(
            config=config, bus=bus, shelves=shelves, versions=versions, model=model, budgets=budgets, step=step
        )
        self.residents = Residents()
        self.decisions = Decisions(config, self.tenant, everyone=everyone, model=model)
        self.pause = Pause(self.tenant, model=model, first_retry=first_retry)
        self.saver = Saver(llama, self.tenant, self.pause)
        self.restorer = Restorer(llama, self.tenant, self.decisions)
        self.actions = Actions(llama, self.saver, self.restorer, self.residents, self.decisions)
        self.template = ChatTemplate(llama, self.tenant, self.residents)
        self.template.on_change = self.changed
        self.attaching = Attaching(self.actions, identify=identify)
        self.moments = Moments(gate, self.actions, self.attaching, self.template, tick=tick)
        self.left: dict[str, tuple[bytes, str]] = {}  # by request: where its prompt ended, and whose it is
        self.on_new_prompts: Callable[[], None] = lambda: None
        self.unstable = self.unstable_bytes = 0

    @property
    def saves(self) -> bool:
        """Whether what is warmed without a request can be saved and brought back."""
        return self.decisions.findings.saves and not self.decisions.literal

    @property
    def watchers(self) -> set[Callable[[], None]]:
        """Called when saving goes on that was paused."""
        return self.pause.watchers

    @property
    def speeds(self) -> Speeds:
        """What was measured of this engine."""
        return self.tenant.knowledge.speeds

    def traits(self, path: str) -> Traits:
        """What the header of the model at `path` says: it is read once as long as the file is the same. Blocks."""
        return self.attaching.identities.traits(path)

    # the engine

    async def attached(self, facts: EngineFacts, *, alone: bool = True) -> None:
        """The engine is up and no request has reached it yet: learn what it is and open its folder. Never raises.

        `alone` False: a request that was granted before may still reach it, so no slot action now (kv-rule 4).
        """
        self.decisions.doubt = ""
        self.decisions.erasing = self.config.isolate == "strict" and bool(facts.build)
        self.pause.renewed()
        try:
            await self.template.meet(facts)  # first, or yesterday's snapshots would be brought back
            await self.attaching.run(facts, alone=alone)
        except Exception:
            log.exception("the engine is served without snapshots: what it can do was not found out")
            self.decisions.findings = Findings(restores=False, saves=False)
            self.decisions.fault = UNEXPECTED
        self.residents.last = self.clock()
        self.moments.emptied.set()

    def gone(self, reason: str) -> None:
        """The engine went away, and with it all that was resident."""
        log.debug("what is resident is gone: %s", reason)
        self.actions.forget("ended")
        self.decisions.facts = None

    def changed(self) -> None:
        """The chat template makes other prompts than before, or than we thought."""
        self.actions.forget("unknown")
        self.on_new_prompts()

    def unknown(self, reason: str, *, group: str | None = None) -> None:
        """A request that is not ours used a slot: what is resident is not known. `group`: whose, if `admit`ted."""
        log.debug("what is resident is unknown: %s", reason)
        own = [one for one in self.residents.slots if group is not None and not one.foreign(group)]
        self.actions.forget("unknown")
        for one in own:
            one.by = group

    # the way of a request

    def want(
        self,
        pieces: Sequence[Piece],
        *,
        group: str = "",
        prefix: str = "",
        version: str = "",
        store: bool = True,
        side: bool = False,
        head: Head | None = None,
        lora: bytes = b"",
        again: tuple[str, bytes] | None = None,
    ) -> Want:
        """Name a prompt by the hashes of its beginnings (what that costs: chain.py). The rest stands in it as it is."""
        cuts = chain("", pieces)
        return Want(
            cuts,
            cuts[-1].offset if cuts else 0,
            group,
            prefix,
            version,
            store,
            side,
            shape=head.shape if head is not None else "",
            fields=head.fields if head is not None and (head.extra or head.kwargs) else {},
            lora=lora,
            again=again,
        )

    def extends(self, want: object) -> bool:
        """Whether a request goes on from what a slot holds (for the gate's order)."""
        return isinstance(want, Want) and self.residents.extends(self.template.read(want).cuts)

    def holds(self, want: Want) -> bool:
        """Whether a slot holds all of `want`."""
        return self.template.read(want).end in self.residents.where

    def missing(self, want: Want) -> int:
        """About how many bytes of a prompt would have to be evaluated now: what no slot holds and no restore brings."""
        read = self.template.read(want)
        position = self.residents.choose(read.cuts, read.size)[1]
        if (found := self.decisions.best(read, position)) is not None:
            position = next((at for at, cut in enumerate(read.cuts, 1) if cut.digest == found.digest), position)
        return read.size - (read.cuts[position - 1].offset if position else 0)

    def pays(self, tokens: int) -> bool:
        """Whether so many tokens are worth a snapshot at all."""
        return tokens * self.speeds.prefill >= self.config.min_seconds

    def has_snapshot(self, want: Want) -> Snapshot | None:
        """The good snapshot of exactly this prompt prefix or head; a conversation's is none: it does not end there."""
        want = self.template.read(want)
        if not want.cuts:
            return None
        shelf, scope = self.tenant.shelf, self.tenant.scope
        found = shelf.index.bounded(want.cuts, scope.fingerprint, want.owner)
        coming = (one for one in shelf.committing.values() if one.bounded and owner(one)[1] == want.owner)
        found += [one for one in coming if one.end == want.end]
        return next((one for one in found if usable(one, scope)), None)

    def touch(self, want: Want, used: float) -> None:
        """A request went on from this head at that unix time, perhaps without a restore."""
        snapshot = self.has_snapshot(want)
        if snapshot is not None and used > snapshot.used and snapshot.id in self.tenant.shelf.index.snapshots:
            self.tenant.shelf.touch(snapshot)

    async def prepare(self, want: Want, grant: Grant) -> Prepared:
        """Make the slot fit for `want`, under its grant: restore what pays, save first what that displaces.

        Raises only if a slot that must be erased cannot be. Cancelling it waits for a slot action under way.
        """
        residents = self.residents
        if self.clock() - residents.last > residents.sleeps_after:
            self.actions.forget("ended")  # the engine slept, and dropped everything
        if self.template.dated:
            await self.template.refresh()
        if want.fields or self.template.dated:  # else it is read as it is
            want = self.template.read(want)
        place, position = residents.choose(want.cuts, want.size)
        lora, crossing = residents.scales(want.lora) if want.lora or residents.adapted else (b"", False)
        prepared = Prepared(place=place, want=want, unsure=crossing or bool(want.doubts))
        shared = want.cuts[position - 1].digest if position else b""
        if position:
            prepared.status = "resident"
            prepared.expected = place.prompt if shared == place.end else place.tokens_at(shared)
        at_risk = [one for one in residents.endangered(place) if one.savable] if residents.parks else []
        if not position or at_risk or not self.decisions.nothing_to_do(want, place, position):
            restoring = self.decisions.restoring and not crossing
            place, position = await self.make_fit(prepared, want, grant, place, position, restoring=restoring)
            shared = want.cuts[position - 1].digest if position else b""
        if position:
            prepared.reach = want.cuts[position].offset if position < len(want.cuts) else want.size
        if place.brought is not None:
            self.restorer.expect(place, shared, prepared, end=want.end)
        if not position or place.state in AWAY:
            residents.somewhere(place)
        residents.take(place, shared, want.group)
        place.lora, place.mixed = lora, place.mixed or crossing
        return prepared

    async def admit(self, group: str, grant: Grant) -> None:
        """A request of `group` that we don't read: with `kv.isolate: strict` nothing of others is left for it."""
        if self.decisions.erasing and (place := (await self.prepare(Want(group=group), grant)).place) is not None:
            place.state = State.PART  # nobody takes down when it ends, nor in which slot it ran

    async def make_fit(
        self,
        prepared: Prepared,
        want: Want,
        grant: Grant,
        place: Resident,
        position: int,
        *,
        restoring: bool,
    ) -> tuple[Resident, int]:
        """Plan and act; the slot that the engine will take then, and how many cuts of `want` are in it."""
        residents = self.residents
        if restoring and self.saver.commits and self.decisions.soon(want, position):
            started = self.clock()
            await self.saver.settle()
            prepared.save_seconds = self.clock() - started
            place, position = residents.choose(want.cuts, want.size)  # others went on meanwhile
            prepared.place, prepared.status = place, "resident" if position else ""
            prepared.expected = place.tokens_at(want.cuts[position - 1].digest) if position else 0
        plan = self.decisions.plan(
            want,
            place,
            position,
            restoring=restoring,
            saving=self.actions.saving,
            endangered=residents.endangered(place),
            slots=residents.slots,
        )
        if plan is not None:
            if plan.match is not None:
                prepared.question = plan.match.question(want.end)
            await self.actions.carry_out(plan, grant, prepared)
            position = common(want.cuts, place.digests)
            if prepared.status == "resident" and not position:
                prepared.status, prepared.expected = "", 0
        if want.prefix and not (want.background or position or prepared.status) and self.decisions.restoring:
            self.bus.publish(SnapshotMissing(prefix=want.prefix))
        return place, position

    def served(self, want: Want, prepared: Prepared, timings: Timings | None, *, complete: bool) -> None:
        """The answer is out, or ended early (`complete` False): take down what the slot holds now.

        Called while the grant is still held. Never raises, never waits.
        """
        self.residents.last = self.clock()
        place = prepared.place or self.residents.choose(want.cuts, want.size)[0]
        if place.state is State.CHANGING:
            place.state = State.PART
        timings = timings if complete and timings is not None else Timings()
        read = self.template.read(want) if want.fields or self.template.dated else want
        if prepared.snapshot is not None:
            self.template.settle(prepared, timings.cached, lambda: self.restorer.judge(prepared, timings))
        if not complete:
            return
        if prepared.want is not None and prepared.want is not read and prepared.want.end != read.end:
            place.clear(empty=False)  # it was rendered on another day, or is another prompt than we thought
            return
        self.decisions.doubt = ""
        if read.prefix:
            self.tenant.asked(read.cuts)
        if timings.evaluated is not None and timings.prefill is not None:
            self.tenant.knowledge.evaluated(timings.evaluated, timings.prefill)
        self.note(place, read, prepared, timings)

    def note(self, place: Resident, want: Want, prepared: Prepared, timings: Timings) -> None:
        """A whole answer leaves its prompt and itself in the slot, without the last sampled token."""
        residents = self.residents
        since = place.since if place.since and place.cuts else residents.last
        cached = timings.cached or 0
        prompt = cached + timings.evaluated if timings.cached is not None and timings.evaluated is not None else 0
        tokens = prompt + max(0, (timings.generated or 1) - 1)
        reach = prompt * prepared.reach // max(1, want.size)
        source, held = place.source
        held = min(held, cached, reach)  # what came from the server's RAM cache and not from the slot isn't in the file
        mixed = place.mixed or cached > max(reach, SLACK)  # more than we can tell the scales of
        place.fill(want.cuts, prompt=prompt, tokens=tokens, group=want.group, prefix=want.prefix, version=want.version)
        place.source = (source, held) if held else ("", 0)
        if want.background:  # to the token; should it be saved before its warm-up does that, it is no conversation
            place.shared, place.head = not want.head, want.head
        place.over = residents.turns
        place.day, place.doubts = want.day, want.doubts
        place.store, place.lasts = want.store, want.lasts
        place.since = since
        if not residents.adapted:
            place.again = want.again if residents.memory else None
        elif mixed and timings.cached != 0:
            place.mixed, place.state = True, State.PART
        if residents.parked:
            residents.goes_on(place.digests)
        if timings.slot is not None:
            residents.found(place, timings.slot)
        worth = place.tokens * self.tenant.knowledge.speeds.prefill >= self.config.min_seconds  # more it cannot be
        if worth and place.lasts and place.savable:
            self.unstable += 1
            self.unstable_bytes += round(self.decisions.bytes_of(place))
        if worth and place.state is State.WHOLE and place.store and self.decisions.findings.saves:
            self.moments.grown.set()

    # saving

    async def keep(self, want: Want, tokens: int, grant: Grant, *, seconds: float) -> bool:
        """Save the prompt prefix or head that is resident now (`tokens` long, `seconds` of prefill); rule 14.

        Under an exclusive grant, right after exactly `want` was evaluated. False: it is not on disk, and the log or
        `/status` says why.
        """
        await self.template.refresh()
        want = self.template.read(want)
        if self.has_snapshot(want) is not None:
            return True
        worth = self.decisions.worth_keeping(want, tokens, seconds)
        if not self.actions.saving or not worth or not grant.try_exclusive():
            return False
        places = [slot for slot in self.residents.where.get(want.end, ()) if slot.end == want.end and slot.savable]
        place = next((slot for slot in places if slot.tokens == tokens), None)
        if place is None:
            log.debug("%s: the slot holds something else than the prompt prefix", want.prefix or want.head)
            return False
        place.shared, place.head = not want.head, want.head
        return await self.actions.save(place, template=place.shared)

    async def conclude(self, want: Want, grant: Grant) -> float:
        """Policy `always`: save what the answer to a templated request left; the seconds that took. Else at once 0.

        Called after `served` and before the grant is given back.
        """
        decisions, place = self.decisions, self.residents.slots[0]
        if not (decisions.literal and decisions.findings.diverging and want.prefix):
            return 0.0
        if not (place.savable and self.actions.saving):
            return 0.0
        started = self.clock()
        async with grant.alone() as alone:
            if alone:
                await self.actions.save(place)
        return self.clock() - started

    # the service

    async def run(self) -> None:
        """Idle saves, housekeeping, questions about the chat template; until cancelled (a guarded service)."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.moments.run(), name="idle saves and housekeeping")
            tasks.create_task(self.template.run(), name="chat template")

    async def close(self, *, deadline: float = 10.0) -> None:
        """Finish what is being written (`deadline` seconds at most) and give the folder back."""
        await self.saver.settle(deadline)
        await aio.shielded(self.tenant.close())

    def deleted(self, identity: str) -> None:
        """A person deleted this snapshot: what it held is not written again before a request goes on from it."""
        for place in (*self.residents.slots, *self.residents.parked):
            if place.saved == identity:
                place.store = False

    # looking

    def list(self) -> tuple[Snapshot, ...]:
        """The snapshots of this engine (without `shelves`: all in its folder), the last used first."""
        return self.tenant.listed()

    def snapshots(self) -> tuple[SnapshotStatistics, ...]:
        """The same for people: without the chain, and with the reason why one is not used."""
        scope, useless = self.tenant.scope, self.decisions.useless
        now = self.tenant.shelf.wall()
        return tuple(of_snapshot(one, scope, useless(template=one.bounded), now=now) for one in self.tenant.listed())

    def statistics(self) -> KvStatistics:
        """Everything at this moment; no snapshot's content, no text."""
        tenant, decisions, findings = self.tenant, self.decisions, self.decisions.findings
        snapshots, found = tenant.listed(), decisions.fingerprint
        return KvStatistics(
            policy=self.config.policy,
            directory=str(tenant.shelf.folder.path) if tenant.shelf.folder else "",
            restoring=decisions.restoring,
            saving=self.actions.saving,
            paused=self.pause.kind,
            reason=self.pause.reason or decisions.doubt,
            notes=(
                *findings.notes,
                *self.attaching.troubles,
                *decisions.reasons(),
                *((SPARED,) if tenant.shelf.least else ()),
            ),
            fingerprint=found.value,
            visible=found.visible,
            hidden=found.hidden,
            build=found.build,
            build_check=self.attaching.builds.outcome,
            family=decisions.traits.family,
            works=decisions.works(),
            snapshots=len(snapshots),
            bytes=sum(one.size for one in snapshots),
            budget=tenant.budget,
            free=tenant.shelf.free,
            written_today=tenant.shelf.today(),
            slots=tuple(of_slot(slot, tenant.unsavable(slot.cuts)) for slot in self.residents.slots),
            speeds=self.speeds,
            restores=dict(self.restorer.restores),
            dropped=tenant.dropped,
            refused=dict(self.saver.refused),
            lost=dict(self.actions.lost),
            unstable=self.unstable,
            unstable_bytes=self.unstable_bytes,
        )

    def __repr__(self) -> str:
        able = [word for word, can in (("restores", self.decisions.restoring), ("saves", self.actions.saving)) if can]
        paused = f", paused ({self.pause.kind})" if self.pause else ""
        return f"<Keeper {' and '.join(able) or 'off'}{paused}, {self.residents.slots}>"
