"""Bringing a snapshot back: checked, poked, restored, and judged later by what the engine used of it.

What can go wrong here empties the slot at worst (facts, 1: a failed restore clears it), and then the engine evaluates
as if there were no snapshot: a request is never refused for the cache's sake. A snapshot that the engine refuses, or
dies of, is quarantined before anything else happens.

What a restore was worth only the engine can tell: `cache_n` of the next response is the proof (kv-rule 6). It is judged
once, counted, and remembered for the snapshot and for the model. A restore that was made before any request asked (rule
21) is judged by the first request that goes on from it; if none does, it is counted as `unused`. If it went through the
server's RAM cache in between, little coming back says nothing about the file: that is `displaced`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from bioproxy.engines.answers import Timings
from bioproxy.engines.facts import Restored
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineRefused, EngineUnavailable
from bioproxy.events import SnapshotMissing, SnapshotRestored
from bioproxy.kv import policy
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.engine import SlotActionTimeout, limited, poke, time_limit
from bioproxy.kv.folder import FolderError
from bioproxy.kv.index import Match
from bioproxy.kv.resident import Prepared, Resident
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Snapshot

log = logging.getLogger(__name__)


class Restorer:
    """Restores snapshots of one engine. `pokes`: what a restore discards can be moved into the server's RAM cache.

    `restores` counts by status: `ok`, `failed`, `worthless`, `displaced`, `skipped`, `unused`.
    """

    def __init__(self, engine: Llama, tenant: Tenant, decisions: Decisions) -> None:
        self.engine = engine
        self.tenant = tenant
        self.decisions = decisions
        self.restores: Counter[str] = Counter()
        self.pokes = True
        self.uncertain = ""  # why what the slots hold is unknown after the last restore; empty: it is not

    async def verified(self, snapshot: Snapshot) -> str:
        """Why the file is not what was written, or why that is not known; empty for a good one (kv-rule 1).

        One that takes too long to read is left alone.
        """
        limit = time_limit(snapshot.size, self.tenant.knowledge.speeds.restore)
        try:
            fault = await limited(self.tenant.shelf.vet(snapshot), seconds=limit, what=f"reading {snapshot.name}")
        except (SlotActionTimeout, FolderError) as error:
            log.warning("a snapshot was not restored: %s", error.message)
            return error.message
        return f"{snapshot.name} is not what was written" if fault else ""

    async def restore(self, match: Match, place: Resident, slot: int, prepared: Prepared, *, unsaved: int) -> bool:
        """Restore `match` into `slot`, under an exclusive grant, and note it in `place` and `prepared`.

        `unsaved`: tokens in the slot that are on no disk (-1: not known). False: nothing was restored, and if the
        engine was asked, the slot is empty or unknown.
        """
        snapshot = match.snapshot
        clock = asyncio.get_running_loop().time
        started = clock()
        self.uncertain, asked = "", False
        try:
            with self.tenant.shelf.held(snapshot):
                if fault := await self.verified(snapshot):
                    prepared.status, prepared.reason = "skipped", fault
                    self.tenant.bus.publish(SnapshotMissing(prefix=snapshot.prefix))
                    return False
                await self.make_way(place, unsaved)
                asked = True
                restored = await self.read(snapshot, slot)
        except BioproxyError as error:
            await self.failed(snapshot, place, error, asked=asked)
            prepared.status, prepared.reason, prepared.expected = "failed", error.message, 0
            prepared.seconds += clock() - started
            return False
        self.note(match, place, restored)
        prepared.status, prepared.snapshot, prepared.expected = "restored", snapshot, match.tokens
        prepared.seconds += clock() - started
        return True

    async def make_way(self, place: Resident, unsaved: int) -> None:
        """Move what the restore would discard into the server's RAM cache, if that is worth a token (kv-rule 16)."""
        speeds = self.tenant.knowledge.speeds
        if not self.pokes or place.empty or place.lora or not (unsaved < 0 or policy.worth_poking(unsaved, speeds)):
            return
        try:
            self.tenant.knowledge.learn(poke=await poke(self.engine, speeds))
        except EngineRefused as error:
            log.info("the engine refused the one-token request that keeps what is resident: %s", error.message)
            self.pokes = False

    async def read(self, snapshot: Snapshot, slot: int) -> Restored:
        """The slot action. Raises what the client raises; Foreign if the file holds another count of tokens."""
        knowledge = self.tenant.knowledge
        limit = time_limit(snapshot.size, knowledge.speeds.restore)
        restored = await limited(self.engine.restore(slot, snapshot.name), seconds=limit, what=f"restoring slot {slot}")
        if restored.tokens != snapshot.tokens:
            await limited(self.engine.erase(slot), seconds=limit, what=f"erasing slot {slot}")
            raise Foreign(f"the engine read {restored.tokens} tokens, {snapshot.tokens} were written")
        knowledge.moved(save=False, size=snapshot.size, tokens=restored.tokens, seconds=restored.seconds)
        return restored

    async def failed(self, snapshot: Snapshot, place: Resident, error: BioproxyError, *, asked: bool) -> None:
        """Record what the failure means for the slot (kv-rule 10) and for the snapshot.

        The snapshot is not to blame if the engine was not `asked` for it, did not hear of it, or is stopped by us.
        """
        place.clear(empty=isinstance(error, EngineRefused | Foreign))
        self.restores["failed"] += 1
        self.tenant.bus.publish(
            SnapshotRestored(prefix=snapshot.prefix, status="failed", tokens=snapshot.tokens, seconds=0.0)
        )
        if isinstance(error, SlotActionTimeout):
            self.uncertain = error.message
            return
        if not isinstance(error, EngineRefused | Foreign):
            self.uncertain = f"the engine went away in a restore: {error.message}"
        if asked and not (isinstance(error, EngineUnavailable) and (not error.sent or self.engine.pool.closing)):
            await self.tenant.shelf.quarantine(snapshot, f"restoring it failed: {error.message}")

    def note(self, match: Match, place: Resident, restored: Restored) -> None:
        snapshot = match.snapshot
        place.fill(
            snapshot.cuts,
            prompt=snapshot.prompt,
            tokens=restored.tokens,
            group=snapshot.group,
            prefix=snapshot.prefix,
            version=snapshot.version,
        )
        place.shared, place.head = snapshot.template, snapshot.head
        place.day = snapshot.day
        place.saved = snapshot.id
        place.source = snapshot.id, restored.tokens
        place.live = False

    # what it was worth

    def expect(self, place: Resident, shared: bytes, prepared: Prepared, *, end: bytes) -> None:
        """A request goes on from what was brought to `place` before, up to the cut `shared` (empty: it shares nothing).

        `end`: the digest of its whole prompt.
        """
        brought = place.brought
        if brought is None:
            return
        if not shared:
            self.restores["unused"] += 1
            return
        snapshot = brought.snapshot
        prepared.status, prepared.snapshot, prepared.expected = "restored", snapshot, snapshot.tokens_at(shared)
        prepared.question = Match(snapshot, shared, shared == snapshot.end).question(end)
        prepared.earlier, prepared.parked = brought.seconds, place.parked

    def judge(self, prepared: Prepared, timings: Timings) -> None:
        """Judge a restore by what the engine used of it, count it and tell."""
        snapshot, prepared.snapshot = prepared.snapshot, None
        if snapshot is None:
            return
        status = "ok" if timings.cached is None else self.verdict(snapshot, prepared, timings.cached)
        self.restores[status] += 1
        tokens, seconds = snapshot.tokens, prepared.seconds + prepared.earlier
        self.tenant.bus.publish(SnapshotRestored(prefix=snapshot.prefix, status=status, tokens=tokens, seconds=seconds))

    def verdict(self, snapshot: Snapshot, prepared: Prepared, cached: int) -> str:
        """`ok`, `displaced` or `worthless`; a worthless file is quarantined."""
        knowledge, question = self.tenant.knowledge, prepared.question
        faulty = policy.judge(prepared.expected, cached, question=question) == "worthless"
        good = not faulty and policy.came_back(prepared.expected, cached)
        if not good and (prepared.unsure or (prepared.parked and cached < policy.SHORT * prepared.expected)):
            return "displaced"
        if self.decisions.tells(question, prepared.expected, good=good):
            knowledge.tried(question, good=good, now=self.tenant.shelf.wall())
            if faulty:
                self.tenant.shelf.mark(snapshot, f"the engine used {cached} of {prepared.expected} restored tokens")
            self.decisions.say()
        if good:
            spent = prepared.seconds + prepared.earlier
            self.tenant.shelf.used(snapshot, gained=cached * knowledge.speeds.prefill - spent)
        return "ok" if good else "worthless"


class Foreign(BioproxyError):
    """A slot file that the engine took and that is not the one we wrote."""

    code = "snapshot_foreign"
