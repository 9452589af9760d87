"""What a restore was worth, told by the engine: judged once, counted, and remembered of the snapshot and the model.

`cache_n` of the next response is the only proof (kv-rule 6). A restore that was made before anybody asked (rule 21) is
judged by the first request that goes on from it; what nobody went on from is counted as `unused`. Where it went through
the server's RAM cache in between, little coming back says nothing about the file: that is `displaced`.
"""

from __future__ import annotations

from collections.abc import Callable

from bioproxy.engines.llama import Timings
from bioproxy.events import SnapshotRestored
from bioproxy.kv import policy
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.index import Match
from bioproxy.kv.resident import Resident
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.store import Store
from bioproxy.kv.want import Prepared


class Verdicts:
    """Judges the restores of one engine. `count` hears each status, `say` logs what is new for the operator."""

    def __init__(
        self, store: Store, decisions: Decisions, count: Callable[[str], None], say: Callable[[], None]
    ) -> None:
        self.store = store
        self.decisions = decisions
        self.count = count
        self.say = say

    def expect(self, place: Resident, shared: bytes, prepared: Prepared, *, end: bytes) -> None:
        """A request goes on from `place`, of which it shares what stands before the cut `shared` (empty: nothing).

        `end`: the digest of its whole prompt.
        """
        brought = place.brought
        if brought is None:
            return
        if not shared:
            self.count("unused")
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
        self.count(status)
        tokens, seconds = snapshot.tokens, prepared.seconds + prepared.earlier
        self.store.bus.publish(SnapshotRestored(prefix=snapshot.prefix, status=status, tokens=tokens, seconds=seconds))

    def verdict(self, snapshot: Snapshot, prepared: Prepared, cached: int) -> str:
        """`ok`, `displaced` or `worthless`; a worthless file is quarantined."""
        knowledge, question = self.store.knowledge, prepared.question
        faulty = policy.judge(prepared.expected, cached, question=question) == "worthless"
        good = not faulty and policy.came_back(prepared.expected, cached)
        if not good and (prepared.unsure or (prepared.parked and cached < policy.SHORT * prepared.expected)):
            return "displaced"
        if self.decisions.tells(question, prepared.expected, good=good):
            knowledge.tried(question, good=good, now=self.store.wall())
            if faulty:
                self.store.mark(snapshot, f"the engine used {cached} of {prepared.expected} restored tokens")
            self.say()
        if good:
            spent = prepared.seconds + prepared.earlier
            self.store.used(snapshot, gained=cached * knowledge.speeds.prefill - spent)
        return "ok" if good else "worthless"
