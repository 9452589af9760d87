"""What `/status`, metrics and tests read of the keeper: one frozen value, made when it is asked for."""

from __future__ import annotations

import msgspec

from bioproxy.kv.index import Scope, unusable
from bioproxy.kv.policy import Answer, Question, Speeds
from bioproxy.kv.resident import Resident, State
from bioproxy.kv.saver import counted
from bioproxy.kv.snapshot import Snapshot


class ResidentStatistics(msgspec.Struct, frozen=True):
    """One slot. `state`: `empty`, `unknown`, `template`, `head`, `conversation` or `changing`; `saved`: it is on disk.

    `unsavable`: what the engine says for not saving it.
    """

    state: str
    tokens: int = 0
    prefix: str = ""
    group: str = ""
    saved: bool = False
    unsavable: str = ""


class SnapshotStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot without its chain. `unused` says why it will not be restored; `seconds` is the prefill in it.

    `pinned`: the operator keeps it. `kept_until`: until when keys do (unix time; 0: for good; None: none does),
    `names`: what they call it. `head`: the name of a head without a prefix, if it is one. `models`: of many models
    those whose cache it is, as far as they ran since the start.
    """

    id: str
    name: str
    template: bool
    prefix: str
    version: str
    group: str
    tokens: int
    bytes: int
    seconds: float
    created: float
    used: float
    uses: int
    gained: float
    build: str
    pinned: bool = False  # an older program that is asked knows none
    kept_until: float | None = None
    names: tuple[str, ...] = ()
    head: str = ""
    unused: str = ""
    models: tuple[str, ...] = ()


class KvStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The KV cache at one moment. Bytes, tokens, seconds; `restores` by status, `dropped` and `refused` by reason.

    `lost`: conversations that were worth a save and did not get one, by reason (actions.py). `unstable`: answers whose
    conversation was not worth one because its head changes at each turn, and about how many bytes those are.

    If several engines share a folder, `snapshots`, `bytes` and `dropped` are this engine's, while `budget`, `free`
    and `written_today` are the folder's.

    `family`: how the model remembers a prompt, as its header says. `works`: what restores were seen to be worth here,
    by what a request does with one.

    `snapshots` and `bytes` leave out each build's reference, on which upgrades are tried (builds.py).
    """

    policy: str
    directory: str
    restoring: bool
    saving: bool
    paused: str  # the kind; empty while saving goes on
    reason: str
    notes: tuple[str, ...]
    fingerprint: str
    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    build: str
    build_check: str
    family: str
    works: dict[Question, Answer]
    snapshots: int
    bytes: int
    budget: int
    free: int
    written_today: int
    slots: tuple[ResidentStatistics, ...]
    speeds: Speeds
    restores: dict[str, int]
    dropped: dict[str, int]
    refused: dict[str, int]
    lost: dict[str, int]
    unstable: int = 0
    unstable_bytes: int = 0

    @property
    def pauses(self) -> dict[str, int]:
        """1 for the kind of the pause, 0 for the others."""
        return counted([self.paused])


def of_slot(slot: Resident, unsavable: str = "") -> ResidentStatistics:
    if slot.state is State.CHANGING:
        state = "changing"
    elif slot.empty:
        state = "empty"
    elif not slot.cuts:
        state = "unknown"
    else:
        state = "template" if slot.shared else "head" if slot.head else "conversation"
    return ResidentStatistics(state, slot.tokens, slot.prefix, slot.group, bool(slot.saved), unsavable)


def of_snapshot(one: Snapshot, scope: Scope, useless: str, *, now: float) -> SnapshotStatistics:
    """One snapshot. `useless`: why none of its kind is used at present; empty if they are."""
    other = "" if one.fingerprint == scope.fingerprint else "another model, or other launch arguments"
    return SnapshotStatistics(
        id=one.id,
        name=one.name,
        template=one.template,
        prefix=one.prefix,
        version=one.version,
        group=one.group,
        tokens=one.tokens,
        bytes=one.size,
        seconds=one.seconds,
        created=one.created,
        used=one.used,
        uses=one.uses,
        gained=one.gained,
        build=one.build,
        pinned=one.pinned,
        kept_until=one.kept_until(now),
        names=tuple(pin.name for pin in one.pins if pin.name),
        head=one.head,
        unused=unusable(one, scope) or other or useless,
    )
