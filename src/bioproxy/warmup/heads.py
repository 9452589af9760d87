"""Which heads clients really put before a template, so that a warm-up renders what a client will send.

A template's prompt prefix depends on what stands before the user message: the system messages of Open WebUI, the tools
of an agent, `enable_thinking`. Warming the bare message would evaluate tokens that no request of theirs can use
(architecture decision 8). So each accepted request with a prefix notes its head here, with a digest of its
conversation; a head counts once two conversations used it, so that a system message with the time of day in it, which
nobody will send again, costs nothing. Of those that count the newest few are warmed; without any, the bare message.

Heads are private text (a system message may hold anything): the file is 0600, what was not used for `max_age` goes, and
requests with `Cache-Control: no-store` are never noted, which is the caller's part.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from bioproxy.config.settings import Settings
from bioproxy.prompt import Head

log = logging.getLogger(__name__)

VERSION = 1  # of the file's layout; another one is not read
KEPT = 32  # heads per prefix, used least recently goes
LARGEST = 1 << 20  # bytes of one head; larger ones are not kept
ENOUGH = 2  # conversations that make a head count
BARE = Head()


class Seen(msgspec.Struct, kw_only=True):
    """One head: when it was last used (unix time), and by which conversations (their digests, `ENOUGH` at most)."""

    head: Head
    used: float
    conversations: list[bytes]


class Stored(msgspec.Struct, kw_only=True):
    """The file: heads by prefix."""

    version: int
    prefixes: dict[str, list[Seen]]


class HeadsStatistics(msgspec.Struct, frozen=True):
    """How many heads are known, how many of them count, and what they weigh."""

    known: int
    counting: int
    bytes: int


def name_of(head: Head) -> str:
    """A short name for `/status` and logs: `bare`, or eight hex digits that tell nothing of the text."""
    if head == BARE:
        return "bare"
    return hashlib.sha256(msgspec.msgpack.encode(head)).hexdigest()[:8]


def weight(head: Head) -> int:
    """The bytes of text in `head`."""
    return sum(len(part) for part in (head.messages, head.tools, head.kwargs, head.lora, head.extra))


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
        self.dirty = False
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
        known[head] = entry  # a dict keeps order: the newest is last
        if len(known) > KEPT:
            del known[next(iter(known))]
        self.dirty = True
        if self.top(prefix) != before:
            self.on_change()

    def top(self, prefix: str) -> tuple[Head, ...]:
        """The heads to warm for `prefix`, newest first; the bare message where none counts yet."""
        newest = reversed(self.seen.get(prefix, {}).values())
        counting = [entry.head for entry in newest if len(entry.conversations) >= ENOUGH]
        return tuple(counting[: self.settings.config.warmup.heads]) or (BARE,)

    def forget(self) -> None:
        """Drop what was not used for `max_age`."""
        oldest = self.clock() - self.max_age
        for prefix, known in list(self.seen.items()):
            fresh = {head: entry for head, entry in known.items() if entry.used >= oldest}
            self.dirty = self.dirty or len(fresh) != len(known)
            self.seen[prefix] = fresh
            if not fresh:
                del self.seen[prefix]

    def load(self) -> None:
        """Read the file; one that is missing, broken or of another version is as good as none (it costs a warm-up)."""
        try:
            stored = msgspec.msgpack.decode(Path(self.path).read_bytes(), type=Stored)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the heads in %s cannot be read and are collected anew: %s", self.path, error)
            return
        if stored.version != VERSION:
            log.info("the heads in %s are of another version (%d) and are collected anew", self.path, stored.version)
            return
        for prefix, entries in stored.prefixes.items():
            self.seen[prefix] = {entry.head: entry for entry in entries}
        self.forget()

    async def save(self) -> None:
        """Write the file if something changed: whole or not at all, readable by us alone. A fault is logged."""
        if not self.dirty:
            return
        prefixes = {prefix: list(known.values()) for prefix, known in self.seen.items()}
        self.dirty = False
        try:
            data = msgspec.msgpack.encode(Stored(version=VERSION, prefixes=prefixes))
            await asyncio.to_thread(write_private, self.path, data)
        except OSError as error:
            self.dirty = True
            log.warning("the heads cannot be kept in %s: %s", self.path, error)

    def statistics(self) -> HeadsStatistics:
        """Counts only; the text of a head is never shown."""
        entries = [entry for known in self.seen.values() for entry in known.values()]
        counting = sum(len(entry.conversations) >= ENOUGH for entry in entries)
        return HeadsStatistics(
            known=len(entries), counting=counting, bytes=sum(weight(entry.head) for entry in entries)
        )


def write_private(path: str, data: bytes) -> None:
    """Replace `path` by `data` in one step, 0600 in a folder 0700: a crash leaves the old file or the new one."""
    folder = Path(path).parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=Path(path).name + ".")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
