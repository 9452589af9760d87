"""Which heads clients really put before a template, so that a warm-up renders what a client will send.

A template's prompt prefix depends on what stands before the user message: the system messages of Open WebUI, the tools
of an agent, `enable_thinking`. Warming the bare message would evaluate tokens that no request of theirs can use
(architecture decision 8). So each accepted request with a prefix notes its head here, with a digest of its
conversation; a head counts once two conversations used it, so that a system message with the time of day in it, which
will never be sent again, costs nothing. Of those that count the newest few are warmed; without any, the bare message.

Long heads without a prefix are looked after in plain.py, and kept in the same file.

The file is written as a whole, and with the tools of agents in it that is megabytes. So it is written when other heads
count than before, every ten minutes at most; that one was used again is only brought down once an hour. What a crash
loses of it costs a warm-up.

Heads are private text (a system message may hold anything): the file is 0600, what was not used for `max_age` goes, and
requests with `Cache-Control: no-store` are never noted, which is the caller's part.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from bioproxy import files
from bioproxy.config.settings import Settings
from bioproxy.errors import NOT_JSON
from bioproxy.prompt import Cut, Head, Piece
from bioproxy.warmup.plain import ENOUGH, LARGEST, Plain, PlainHeads, weight
from bioproxy.warmup.unstable import Unstable, UnstableStatistics

log = logging.getLogger(__name__)

VERSION = 1  # of the file's layout; another one is not read
KEPT = 32  # heads per prefix, used least recently goes
MOST = 256 << 20  # bytes of the file that are read
CHANGED, USED = 600.0, 3600.0  # seconds from one write to the next: other heads count, or the same were used
BARE = Head()


class Seen(msgspec.Struct, kw_only=True):
    """One head: when it was last used (unix time), and by which conversations (their digests, `ENOUGH` at most)."""

    head: Head
    used: float
    conversations: list[bytes]

    @property
    def counts(self) -> bool:
        """Whether it is one of those that are warmed."""
        return len(self.conversations) >= ENOUGH


class Stored(msgspec.Struct, kw_only=True):
    """The file: heads by prefix, and those without one."""

    version: int
    prefixes: dict[str, list[Seen]]
    plain: list[Plain] = []


class Written(msgspec.Struct, kw_only=True):
    """The same, each head encoded on its own: one encoding of megabytes would hold up the loop from any thread."""

    version: int
    prefixes: dict[str, list[msgspec.Raw]]
    plain: list[msgspec.Raw]


class HeadsStatistics(msgspec.Struct, frozen=True):
    """How many heads are known, how many of them count, and what they weigh; `plain`: those without a prefix.

    `unstable`: those that change at each turn.
    """

    known: int
    counting: int
    bytes: int
    plain: int
    unstable: tuple[UnstableStatistics, ...] = ()


def name_of(head: Head) -> str:
    """A short name for `/status` and logs: `bare`, or eight hex digits that tell nothing of the text."""
    if head == BARE:
        return "bare"
    return hashlib.sha256(msgspec.msgpack.encode(head)).hexdigest()[:8]


class Heads:
    """The heads of each prefix, newest first when asked.

    `path` is the file; `max_age` in seconds. `warmup.heads` says how many per prefix are warmed (0: always the bare
    message).
    """

    def __init__(
        self, path: str, *, settings: Settings, max_age: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.settings = settings
        self.max_age = max_age
        self.clock = clock
        self.seen: dict[str, dict[Head, Seen]] = {}
        self.unstable = Unstable()
        self.plain = PlainHeads(limit=lambda: settings.config.warmup.plain_heads, clock=clock)
        self.changed = self.used = False  # since the last write: other heads count, any was used
        self.written = -USED  # by the clock
        self.loaded = False
        self.on_change: Callable[[], None] = lambda: None  # called when `top` of any prefix may have changed

    def note(self, prefix: str, head: Head, conversation: bytes) -> None:
        """A request of `conversation` (a digest that stays the same from turn to turn) used `head` before `prefix`."""
        if weight(head) > LARGEST:
            return
        before = self.top(prefix)
        known = self.seen.setdefault(prefix, {})
        entry = known.pop(head, None) or Seen(head=head, used=0.0, conversations=[])
        entry.used = self.clock()
        if conversation not in entry.conversations and len(entry.conversations) < ENOUGH:
            entry.conversations.append(conversation)
            self.changed = self.changed or entry.counts
        known[head] = entry  # a dict keeps order: the newest is last
        if len(known) > KEPT:
            self.changed = known.pop(next(iter(known))).counts or self.changed
        self.used = True
        if self.top(prefix) != before:
            self.on_change()

    def began(self, group: str, cuts: Sequence[Cut], pieces: Sequence[Piece], head: Head, *, plain: bool) -> int:
        """A request of `group` was accepted, without a prefix if `plain`: how many bytes of its prompt will come again.

        0: all of them, as far as is known. `cuts` is the chain through its `pieces`, of which the first is `head`.
        """
        stable = self.unstable.look(group, cuts, pieces, head)
        self.used = True
        if stable is None:
            counts = plain and self.plain.began(group, cuts, pieces, head)
        else:
            counts = plain and self.plain.changed(group, stable)
        if counts:
            self.changed = True
            self.on_change()
        return 0 if stable is None else stable.cut.offset if stable.cut is not None else 1

    def top(self, prefix: str) -> tuple[Head, ...]:
        """The heads to warm for `prefix`, newest first; the bare message if none counts yet."""
        newest = reversed(self.seen.get(prefix, {}).values())
        counting = [entry.head for entry in newest if entry.counts]
        return tuple(counting[: self.settings.config.warmup.heads]) or (BARE,)

    def forget(self) -> None:
        """Drop what was not used for `max_age`."""
        oldest = self.clock() - self.max_age
        for prefix, known in list(self.seen.items()):
            fresh = {head: entry for head, entry in known.items() if entry.used >= oldest}
            self.changed = self.changed or len(fresh) != len(known)
            self.seen[prefix] = fresh
            if not fresh:
                del self.seen[prefix]
        self.changed = self.plain.forget(oldest) or self.changed

    async def load(self) -> None:
        """Take in what the file says, once, as older than what was noted since the start."""
        if self.loaded:
            return
        self.loaded = True
        try:
            stored = await files.away(read, self.path)
        except FileNotFoundError:
            return
        except (OSError, *NOT_JSON, files.Stuck) as error:
            said = "the heads in %s cannot be read and are collected anew: %s"
            log.warning(said, self.path, files.in_short(error))
            return
        if stored.version != VERSION:
            log.info("the heads in %s are of another version (%d) and are collected anew", self.path, stored.version)
            return
        for prefix, entries in stored.prefixes.items():
            known = {entry.head: entry for entry in entries}
            newer = self.seen.get(prefix, {})
            self.seen[prefix] = {head: entry for head, entry in known.items() if head not in newer} | newer
        self.plain.take_in(stored.plain)
        self.forget()

    async def save(self, *, last: bool = False) -> None:
        """Write the file if it is time for it, or `last` chance: whole or not at all. A fault is logged."""
        due = self.written + (CHANGED if self.changed else USED)
        if not (self.changed or self.used) or (self.clock() < due and not last):
            return
        prefixes = {prefix: [copied(entry) for entry in known.values()] for prefix, known in self.seen.items()}
        plain = [replace(one) for one in self.plain.kept.values()]
        before = self.changed, self.used, self.written
        self.changed, self.used, self.written = False, False, self.clock()
        try:
            await files.away(write, self.path, prefixes, plain)
        except (OSError, files.Stuck) as error:
            self.changed, self.used, self.written = before
            log.warning("the heads cannot be kept in %s: %s", self.path, files.in_short(error))

    def statistics(self) -> HeadsStatistics:
        """Counts only; the text of a head is never shown."""
        entries = [entry for known in self.seen.values() for entry in known.values()]
        plain = [one.head for one in self.plain.kept.values()]
        return HeadsStatistics(
            known=len(entries),
            counting=sum(entry.counts for entry in entries),
            bytes=sum(map(weight, (*(entry.head for entry in entries), *plain))),
            plain=len(plain),
            unstable=self.unstable.statistics(),
        )


def copied(entry: Seen) -> Seen:
    """A copy that does not change while it is written."""
    return replace(entry, conversations=list(entry.conversations))


def read(path: str) -> Stored:
    """The file. OSError, DecodeError, Stuck. Blocks."""
    return msgspec.msgpack.decode(files.read(path, most=MOST), type=Stored)


def raw(entries: Iterable[Seen | Plain]) -> list[msgspec.Raw]:
    return [msgspec.Raw(msgspec.msgpack.encode(one)) for one in entries]


def write(path: str, prefixes: dict[str, list[Seen]], plain: list[Plain]) -> None:
    """Replace the file, 0600 in a folder 0700. OSError, Stuck. Blocks."""
    written = Written(version=VERSION, prefixes={name: raw(seen) for name, seen in prefixes.items()}, plain=raw(plain))
    with files.touching(path):
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_whole(path, msgspec.msgpack.encode(written))
