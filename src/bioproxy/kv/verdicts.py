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
from bioproxy.kv.resident import Resident
from bioproxy.kv.snapshot import Snapshot
from bioproxy.kv.store import Store
from bioproxy.kv.want import Prepared

HOPELESS = (
    "restores are worth nothing on this model with this build (sliding-window or hybrid attention): no snapshots are "
    "used; a llama.cpp whose slot files hold checkpoints mends that"
)


class Verdicts:
    """Judges the restores of one engine. `count` hears each status, `remark` what the operator should know."""

    def __init__(
        self, store: Store, decisions: Decisions, count: Callable[[str], None], remark: Callable[[str], None]
    ) -> None:
        self.store = store
        self.decisions = decisions
        self.count = count
        self.remark = remark

    def expect(self, place: Resident, shared: bytes, prepared: Prepared) -> None:
        """A request goes on from `place`, of which it shares what stands before the cut `shared` (empty: nothing)."""
        brought = place.brought
        if brought is None:
            return
        if not shared:
            self.count("unused")
            return
        snapshot = brought.snapshot
        prepared.status, prepared.snapshot, prepared.exact = "restored", snapshot, shared == snapshot.end
        prepared.expected = snapshot.tokens_at(shared)
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
        """`ok`, `displaced` or `worthless`; a worthless snapshot is quarantined."""
        knowledge = self.store.knowledge
        if prepared.parked and cached < policy.SHORT * prepared.expected:
            return "displaced"
        found = knowledge.restored(
            prepared.expected, cached, exact=prepared.exact, template=snapshot.template, now=self.store.wall()
        )
        if found != "worthless":
            spent = prepared.seconds + prepared.earlier
            self.store.used(snapshot, gained=cached * knowledge.speeds.prefill - spent)
            return "ok"
        self.store.mark(snapshot, f"the engine used {cached} of {prepared.expected} restored tokens")
        if self.decisions.hopeless:
            self.remark(HOPELESS)
        return "worthless"
