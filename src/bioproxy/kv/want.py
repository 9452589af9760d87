"""The values that cross the border between the keeper and those who use it, and what it needs of a gate.

A request comes as a `Want` (the cuts of its prompt and who asks), `prepare` answers with a `Prepared`, and `served`
gets both back with what the engine counted. The gate is known by two Protocols only: kv and gate are neighbours that do
not import each other.
"""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import msgspec

from bioproxy.kv.policy import Question
from bioproxy.kv.resident import Resident
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut, Doubt

Status = Literal["", "resident", "restored", "failed", "skipped"]


class Want(msgspec.Struct, frozen=True):
    """What a request would like to find in the slot: its cuts, `size` bytes in all, and whose conversation it is.

    `prefix` and `version` name the template of its last user message (empty: none); `store` is False where the client
    said `Cache-Control: no-store`: such a prompt may be served from snapshots and is never written into one.

    `shape` (Head.shape; empty: it goes past the chat template) and `fields` say what else may shape the prompt.
    chat_template.py makes a reading of them, in which both are empty and `day` and `doubts` are as in Resident.
    `background`: a warm-up's, so `kv.min_seconds` does not count (decisions.py says why). `again`: path and body of the
    request as the engine got it, the only text in here. It is kept in memory until the conversation is on disk, for
    what the engine moved into its RAM cache comes back for that request alone.
    """

    cuts: tuple[Cut, ...] = ()
    size: int = 0
    group: str = ""
    prefix: str = ""
    version: str = ""
    store: bool = True
    shape: str = ""
    fields: dict[Doubt, bytes] = {}
    lora: bytes = b""
    day: str = ""
    doubts: frozenset[Doubt] = frozenset()
    readings: dict[object, Want] = msgspec.field(default_factory=dict)
    background: bool = False
    again: tuple[str, bytes] | None = None

    @property
    def end(self) -> bytes:
        """The digest of the whole prompt; empty if nothing is known of it."""
        return self.cuts[-1].digest if self.cuts else b""


class Prepared(msgspec.Struct):
    """What was done for a request before it was sent.

    `status`: empty (nothing known, nothing on disk), `resident` (the slot holds a beginning of it already), `restored`,
    `failed` (the slot is empty now; the engine evaluates) or `skipped` (a snapshot would have helped and was not used;
    `reason` says why). `seconds`: restoring; `save_seconds`: saving what was displaced; `expected`: tokens that should
    come from the cache. `question`: what the request does with the snapshot; fewer cached tokens are the file's fault
    only if it goes on from all of it (rule 6).
    `earlier`: seconds of a restore that was made before this request was let in (rule 21). `parked`: what was restored
    went through the server's RAM cache since, so fewer tokens say nothing about the snapshot. `reach`: bytes of the
    prompt that what is resident may share with it, at most. `want`: the prompt as it was read then. `unsure`: that too
    little came back may have another cause than the snapshot.
    """

    status: Status = ""
    seconds: float = 0.0
    save_seconds: float = 0.0
    snapshot: Snapshot | None = None
    expected: int = 0
    question: Question = "extends"
    earlier: float = 0.0
    parked: bool = False
    reach: int = 0
    reason: str = ""
    want: Want | None = None
    unsure: bool = False
    place: Resident | None = None  # the slot that this request will change, as far as we can tell

    @property
    def exact(self) -> bool:
        """Whether the request shares all of the snapshot."""
        return self.question != "diverges"


class GrantLike(Protocol):
    """What the keeper needs of a grant: to have the engine alone for a slot action."""

    @property
    def exclusive(self) -> bool:
        """Whether the engine is ours alone already."""

    def try_exclusive(self) -> bool:
        """Have the engine alone from now on; False when something else may be running."""

    def share(self) -> None:
        """Let others in again."""

    def release(self, *, cut: bool = False) -> None:
        """Give the engine back; `cut`: it may still be at work."""


@runtime_checkable
class StopGateLike(Protocol):
    """What the save before a stop needs of the gate."""

    async def acquire(self, *, work: Literal["background"], exclusive: Literal[True], last: Literal[True]) -> GrantLike:
        """Wait for the engine, alone, also when the gate lets nobody else in any more."""


class GateLike(Protocol):
    """What the idle saver needs of the gate."""

    @property
    def user_waiting(self) -> bool:
        """Whether a client waits."""

    async def acquire(self, *, work: Literal["background"], exclusive: Literal[True]) -> GrantLike:
        """Wait for the engine, alone, behind everyone else."""

    async def wait_idle(self, seconds: float) -> None:
        """Return as soon as nothing has run or waited for `seconds`."""
