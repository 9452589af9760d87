"""A snapshot's description: everything we must know about a slot file, for llama-server's format says nothing of it.

The file itself names no model, no prompt and no length that could be trusted (facts, 0.1 and 0.2), so each
`bp-<fingerprint>-<id>.kv` has a sidecar of the same name with `.json`: whose it is, what was evaluated (as hashes), how
large it must be. A file without a sidecar is worth nothing and is removed; so is a sidecar without its file.

Names use `[A-Za-z0-9._-]` only, for the engine accepts bare names and is picky (facts, 1). The text of a prompt is not
in the sidecar. It is in the slot file, as tokens, which is why both are 0600.
"""

from __future__ import annotations

import contextlib
import re
import secrets

import msgspec

from bioproxy.errors import NOT_JSON, BioproxyError
from bioproxy.kv.chain import tokens_at
from bioproxy.prompt import Cut

VERSION = 1
DAMAGED = "is not what was written: the disk, or somebody, changed it"  # stands in the reason of a damaged one
PREFIX = "bp-"
TEMPORARY = "bp-tmp-"
SUFFIX = ".kv"
SIDECAR = ".json"
NOBODY: frozenset[str] = frozenset()
NAME = re.compile(r"bp-([0-9a-f]{16})-([0-9a-f]{16})\.(kv|json)")


class Pin(msgspec.Struct, frozen=True):
    """A group wants a snapshot kept: until the unix time `until` (0: for good), as the context `name` if it has one."""

    group: str
    until: float = 0.0
    name: str = ""

    def live(self, now: float) -> bool:
        return not self.until or self.until > now


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One verified slot file.

    `tokens` are in the file, `prompt` of them belong to `cuts` (the rest was generated). `size` (bytes), `mtime_ns` and
    `inode` are compared before each use, `checksum` (CRC-32C of the whole file; None: an older version wrote it) before
    the first one in a run; `sample` is a digest of parts of the content. `seconds` is the prefill it
    stands for. `created` and `used` are unix time; `gained` is the prefill that its uses spared, in seconds.
    `lora`: the LoRA scales that were asked for. `day`: what the chat template printed beside it, if that changes.
    `quarantined` says why it is not used any more; empty while it is good. `pinned`: the operator wants it kept, so the
    budget does not take it; `pins`: groups want it kept. `template`: it ends at a template's boundary, holds nothing of
    a user, and is shared by all groups. `head`: the name of the head that it is, if it is one without a prefix; it
    belongs to its group. `model`: the ID of the model whose cache it is; "" for the only one, and in what an older
    version wrote.
    """

    id: str
    fingerprint: str
    build: str
    cuts: tuple[Cut, ...]
    tokens: int
    prompt: int
    size: int
    mtime_ns: int = 0
    inode: int = 0
    checksum: int | None = None
    sample: str = ""
    template: bool = False
    group: str = ""
    prefix: str = ""
    version: str = ""
    day: str = ""
    lora: bytes = b""
    seconds: float = 0.0
    created: float = 0.0
    used: float = 0.0
    uses: int = 0
    gained: float = 0.0
    quarantined: str = ""
    pinned: bool = False
    pins: tuple[Pin, ...] = ()
    model: str = ""
    head: str = ""

    @property
    def name(self) -> str:
        """The slot file's bare name, as the engine's API wants it."""
        return f"{PREFIX}{self.fingerprint}-{self.id}{SUFFIX}"

    @property
    def sidecar(self) -> str:
        return f"{PREFIX}{self.fingerprint}-{self.id}{SIDECAR}"

    @property
    def reference(self) -> bool:
        """Whether it is a build's reference (builds.py), which is no request's prompt."""
        return self.template and not self.prefix

    @property
    def bounded(self) -> bool:
        """Whether it ends where its template or head does: nothing in it was generated, and many requests extend it."""
        return self.template or bool(self.head)

    @property
    def damaged(self) -> bool:
        """Whether its bytes are wrong, which says nothing about what was in it."""
        return DAMAGED in self.quarantined

    @property
    def end(self) -> bytes:
        """The digest of everything in it; two snapshots with the same end hold the same prompt."""
        return self.cuts[-1].digest

    def kept_by(self, now: float) -> frozenset[str]:
        """The groups that have it kept; none for one that is never used again, which nobody can be helped with."""
        if self.quarantined or not self.pins:
            return NOBODY
        return frozenset(one.group for one in self.pins if one.live(now))

    def kept_until(self, now: float) -> float | None:
        """Until when groups have it kept; 0: for good, None: none does."""
        ends = [one.until for one in self.pins if one.live(now)] if self.kept_by(now) else []
        return 0.0 if 0.0 in ends else max(ends, default=None)

    def kept(self, now: float) -> bool:
        """Whether the budget leaves it alone."""
        return self.pinned or bool(self.kept_by(now))

    def tokens_at(self, digest: bytes) -> int:
        """About how many tokens stand before the cut `digest`; exact at the end, 0 for one that it does not have."""
        return tokens_at(self.cuts, self.prompt, digest)


class Newer(BioproxyError):
    """A newer bioproxy wrote this. It is good, so it must neither be misread nor removed."""

    code = "snapshot_newer"


class Versioned(msgspec.Struct, frozen=True):
    """As much of any file of ours as every version can read."""

    version: int


class Sidecar(msgspec.Struct, frozen=True):
    """What stands in the sidecar: a version, so that no bioproxy misreads what another one wrote.

    `checksum`: CRC-32C of the description itself (None: an older version wrote it), for a flipped bit in there gives a
    conversation to another group, or takes its file's own checksum away.
    """

    version: int
    snapshot: msgspec.Raw
    checksum: int | None = None


def new_id() -> str:
    """A fresh snapshot id: 16 hex digits, never derived from content (a name must not tell what was asked)."""
    return secrets.token_hex(8)


def temporary_name(identity: str) -> str:
    """The name under which the engine writes before anything is verified."""
    return f"{TEMPORARY}{identity}{SUFFIX}"


def checksum(data: bytes) -> int:
    from crc32c import crc32c  # it takes 4 MB, with what it imports

    return int(crc32c(data))


def encode(snapshot: Snapshot) -> bytes:
    described = msgspec.json.encode(snapshot)
    return msgspec.json.encode(Sidecar(VERSION, msgspec.Raw(described), checksum(described)))


def refuse_newer(data: bytes) -> None:
    """Raise Newer for a file that says so; what is no such file at all is told by whoever reads all of it."""
    with contextlib.suppress(*NOT_JSON):
        found = msgspec.json.decode(data, type=Versioned)
        if found.version > VERSION:
            raise Newer(f"a newer bioproxy wrote it (version {found.version}; this one reads up to {VERSION})")


def decode(data: bytes) -> Snapshot:
    """Read a sidecar. Raises msgspec.MsgspecError (unreadable), ValueError (nonsense) or Newer.

    An older version's lacks fields that came later: each of them has a default that says so.
    """
    refuse_newer(data)
    sidecar = msgspec.json.decode(data, type=Sidecar)
    if sidecar.checksum not in (None, checksum(bytes(sidecar.snapshot))):
        raise ValueError("it is not what was written")
    snapshot = msgspec.json.decode(sidecar.snapshot, type=Snapshot)
    if not snapshot.cuts or snapshot.tokens < snapshot.prompt or snapshot.size <= 0:
        raise ValueError("it describes no prompt")
    return snapshot
