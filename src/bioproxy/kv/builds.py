"""After an upgrade of the engine: whether the new build reads what the old one wrote.

A fingerprint says that the model is the same; whether the slot file's format and the meaning of its cells still are,
only a try can tell. So each build leaves a *reference*: a snapshot of one short sentence. After an upgrade it is
restored, continued by a few tokens, and compared with the same tokens evaluated from nothing. The same next token and
the same log-probabilities (to what rounding does) mean that all snapshots of that build are good, and they are adopted.
Otherwise they stay where they are as long as there is room, unused, and templates are warmed again.

The slot is free while this runs: it happens before the engine is declared ready, or under an exclusive grant of class
background. With several slots all of them are empty: the server itself chooses one for the tokens, and it chooses the
one that was restored, because that has most of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from bioproxy.engines.facts import Probe
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineRefused
from bioproxy.kv import files, policy
from bioproxy.kv.chain import chain
from bioproxy.kv.engine import limited
from bioproxy.kv.folder import FolderError
from bioproxy.kv.resident import Resident
from bioproxy.kv.saver import Saver
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Piece

log = logging.getLogger(__name__)

SENTENCE = "A cache that was written yesterday must say tomorrow what it said when it was written."
CONTINUATION = " Let us see whether it does."
CUTS = chain("bioproxy reference", [Piece("reference", SENTENCE.encode())])
FALLBACK = tuple(range(10, 42))  # token ids for an engine that does not tokenize for us
TAIL = 4  # tokens evaluated after the restored ones
LIMIT = 20.0  # seconds for each step
TOLERANCE = 0.1  # of a log-probability: batches of another size round differently
COMPARED = 5


def same_answer(restored: Probe, cold: Probe) -> bool:
    """Whether two probes of the same tokens agree up to rounding: the next token, and the likeliest ones' figures."""
    told = dict(restored.logprobs)
    likeliest = cold.logprobs[:COMPARED]
    if any(token in told and abs(told[token] - value) > TOLERANCE for token, value in likeliest):
        return False
    if restored.token == cold.token:
        return True
    figures = dict(cold.logprobs)
    gap = figures.get(cold.token, 0.0) - figures.get(restored.token, float("-inf"))
    return abs(gap) <= TOLERANCE  # two candidates as good as each other


class Builds:
    """Writes the reference of the present build, and tries those of others."""

    def __init__(self, engine: Llama, tenant: Tenant, saver: Saver) -> None:
        self.engine = engine
        self.tenant = tenant
        self.saver = saver
        self.outcome = ""  # one sentence for log and /status
        self.used: set[int] = set()  # slots that are not empty any more

    def reference(self, build: str) -> Snapshot | None:
        own = self.tenant.scope.fingerprint
        same = self.tenant.shelf.index.bounded(CUTS, own, None)
        same += [one for one in self.tenant.shelf.committing.values() if one.reference and one.fingerprint == own]
        return next((one for one in same if one.build == build and not one.quarantined), None)

    def to_try(self) -> dict[str, list[Snapshot]]:
        """Snapshots of other builds that were not tried yet with this one, by build."""
        foreign = self.tenant.shelf.index.foreign_builds(self.tenant.scope)
        return {build: found for build, found in foreign.items() if build not in self.tenant.knowledge.refused}

    def wait(self) -> None:
        """Snapshots of other builds cannot be tried now, because the slots are in use: say so."""
        found = [one for each in self.to_try().values() for one in each if not one.reference]
        if found:
            size = policy.mib(sum(one.size for one in found))
            self.outcome = (
                f"{len(found)} snapshots ({size}) of other builds are not used yet: they are tried on this one as soon "
                "as its slots are empty, at the latest when the engine starts anew"
            )
            log.info("the engine's build is %s now; %s", self.tenant.scope.build or "unknown", self.outcome)

    async def tokens(self, *, tokenizes: bool) -> tuple[list[int], list[int]]:
        if not tokenizes:
            return list(FALLBACK[:-TAIL]), list(FALLBACK[-TAIL:])
        sentence = await self.engine.tokenize(SENTENCE)
        both = await self.engine.tokenize(SENTENCE + CONTINUATION)
        common = next((n for n, (a, b) in enumerate(zip(sentence, both, strict=False)) if a != b), len(sentence))
        return both[:common], both[common:] or both[-TAIL:]

    async def leave_reference(self, slot: int | None, *, tokenizes: bool) -> bool:
        """Evaluate the sentence and save it; False if that did not work (it is tried again at the next attach).

        `slot`: the only one; if there are several (None) the engine says which one it took.
        """
        try:
            sentence, _ = await self.tokens(tokenizes=tokenizes)
            timings = await limited(self.engine.prefill(sentence), seconds=LIMIT, what="the reference's prefill")
        except BioproxyError as error:
            log.info("no reference for a later upgrade was made: %s", error.message)
            return False
        slot = timings.slot if slot is None else slot
        if slot is None:
            log.info("no reference for a later upgrade was made: the engine does not say which slot it took")
            return False
        self.used.add(slot)
        resident = Resident(slot)
        resident.fill(CUTS, prompt=len(sentence), tokens=len(sentence), group="", prefix="", version="reference")
        return await self.saver.save(resident, slot, template=True)

    async def run(self, *, tokenizes: bool, several: bool) -> tuple[int, ...]:
        """Try each other build's reference; adopt its snapshots or note that they are no good. Leave one of this.

        The slots that hold something then.
        """
        self.used = {0}
        for build, snapshots in self.to_try().items():
            good, why = await self.try_one(build, 0, tokenizes=tokenizes)
            size = policy.mib(sum(one.size for one in snapshots))
            if good:
                self.tenant.adopt(snapshots)
                verdict = "are good and were adopted"
            else:
                self.tenant.refuse(build)
                verdict = f"are not used any more: {why}"
            self.outcome = f"{len(snapshots)} snapshots ({size}) of build {build or 'unknown'} {verdict}"
            log.info("the engine's build is %s now; %s", self.tenant.scope.build or "unknown", self.outcome)
        if self.reference(self.tenant.scope.build) is None:
            await self.leave_reference(None if several else 0, tokenizes=tokenizes)
        return tuple(self.used)

    async def try_one(self, build: str, slot: int, *, tokenizes: bool) -> tuple[bool, str]:
        """Whether this build reads what `build` wrote, and why not. Raises EngineUnavailable if the engine goes."""
        reference = self.reference(build)
        if reference is None or self.tenant.shelf.folder is None:
            return False, "that build left no reference to try"
        try:
            await self.tenant.shelf.prove(reference)
            sentence, rest = await self.tokens(tokenizes=tokenizes)
            restored, cold = await self.compare(reference, slot, [*sentence, *rest])
        except (files.Unverified, FolderError, EngineRefused) as error:
            return False, error.message
        cached = restored.timings.cached or 0
        if cached < reference.tokens - policy.SLACK:
            return False, f"only {cached} of {reference.tokens} restored tokens were used"
        if not same_answer(restored, cold):
            return False, "after a restore the engine says something else than after a cold start"
        return True, ""

    async def compare(self, reference: Snapshot, slot: int, tokens: Sequence[int]) -> tuple[Probe, Probe]:
        restore = self.engine.restore(slot, reference.name)
        await limited(restore, seconds=LIMIT, what="restoring the reference")
        restored = await limited(self.engine.probe(tokens), seconds=LIMIT, what="a probe")
        cold = await limited(self.engine.probe(tokens, cache_prompt=False), seconds=LIMIT, what="a cold probe")
        return restored, cold
