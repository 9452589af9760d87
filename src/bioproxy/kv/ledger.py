"""What is remembered of a folder beside its snapshots: the file `bp-index.json`.

How each was used and when it was read last, what the present day wrote, and what was learnt of each engine (policy.py).
Of all that only what was learnt cannot be rebuilt; losing it costs a few measurements.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from bioproxy.errors import NOT_JSON
from bioproxy.kv.policy import Knowledge
from bioproxy.kv.snapshot import VERSION, Snapshot

MOST_ENGINES = 256  # fingerprints that are remembered: each change of a model's arguments makes a new one


class Use(msgspec.Struct):
    """How a snapshot was used: last time (unix), how often, seconds of prefill that it spared."""

    used: float = 0.0
    uses: int = 0
    gained: float = 0.0


class Ledger(msgspec.Struct, kw_only=True):
    """The file `bp-index.json`.

    Of the `day` (UTC): bytes of snapshots `written`, seconds of prefill `preserved` in them, bytes `read` to verify old
    ones. `engines`: the last used last. `verified`: when all of a snapshot was read and was good (unix time).
    """

    version: int = VERSION
    engines: dict[str, Knowledge] = {}
    uses: dict[str, Use] = {}
    verified: dict[str, float] = {}
    day: str = ""
    written: int = 0
    preserved: float = 0.0
    read: int = 0

    def of(self, fingerprint: str, build: str) -> Knowledge:
        """What is known of an engine that is in use now."""
        known = self.engines.pop(fingerprint, None) or Knowledge(build=build)
        self.engines[fingerprint] = found = known.upgraded(build)
        return found

    def turn(self, day: str) -> None:
        """A day begins: what was counted on an earlier one counts no more."""
        self.day, self.written, self.preserved, self.read = day, 0, 0.0, 0

    def used(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot as it was used, which its sidecar does not say."""
        use = self.uses.get(snapshot.id)
        if use is None:
            return snapshot
        return msgspec.structs.replace(snapshot, used=use.used, uses=use.uses, gained=use.gained)

    def prune(self, snapshots: Iterable[str]) -> None:
        """Forget the uses of other snapshots than these, and engines that many others were used after."""
        known = frozenset(snapshots)
        self.uses = {identity: use for identity, use in self.uses.items() if identity in known}
        self.verified = {identity: at for identity, at in self.verified.items() if identity in known}
        for fingerprint in list(self.engines)[:-MOST_ENGINES]:
            del self.engines[fingerprint]


def read_ledger(data: bytes) -> Ledger:
    """The ledger from its bytes; a fresh one if they are empty, broken or of another version (never fatal)."""
    try:
        ledger = msgspec.json.decode(data, type=Ledger)
    except NOT_JSON:
        return Ledger()
    return ledger if ledger.version == VERSION else Ledger()
