"""How each message of a conversation was expanded the first time, so that later turns find the cache.

A client that asks `@code What is this?` sends these words again with every turn. If a file of the template changed
in between, the current text would change the conversation's beginning, and all of it would be evaluated again. So a
message that has been answered is expanded with the version that the answer was given to: its pin.

A pin's key is a digest of the conversation as the client sent it, up to and with that message, within one API key's
scope (expand.py computes it); what is kept is the version, and each version's text once as long as a pin needs it. The
least recently used pins go first: beyond 1000 conversations, or 64 MiB of texts.

On disk, in a folder of its own (0700, files 0600: templates are private text):

    index              which key is pinned to which version, and when it was last used
    text-<version>     one version's text, written once

Every file is written beside its place and renamed, so that a crash leaves the old state or the new one. A file that is
missing or broken costs the pins that need it and nothing else: without a pin the current text is used.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.templates.parse import Filled, version_of

log = logging.getLogger(__name__)

MOST = 1000  # conversations
MOST_TEXT = 64 << 20  # bytes of versions' texts
LARGEST = 2 * MOST_TEXT  # bytes of one file
DELAY = 2.0  # seconds from a pin to its being on disk: one write for what happens together
PAUSE = 30.0  # seconds from one write of the index to the next: it is written as a whole, and a busy day has many pins
LAYOUT = 1
INDEX, TEXT = "index", "text-"


class Pin(msgspec.Struct):
    """One pinned message: which template in which version, and when it was last used (unix time)."""

    prefix: str
    version: str
    used: float


class Index(msgspec.Struct):
    """The index file: pins by key, least recently used first."""

    layout: int
    pins: list[tuple[bytes, Pin]]


class PinStatistics(msgspec.Struct, frozen=True):
    """How many messages are pinned, to how many versions, and the bytes of their texts."""

    pins: int
    versions: int
    bytes: int


class Pins:
    """The pins of all conversations. `folder` is theirs alone; None: in memory only. `clock` tells unix time."""

    def __init__(
        self,
        folder: str | Path | None,
        *,
        limit: int = MOST,
        text_limit: int = MOST_TEXT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = Path(folder) if folder is not None else None
        self.limit = limit
        self.text_limit = text_limit
        self.clock = clock
        self.pins: OrderedDict[bytes, Pin] = OrderedDict()
        self.texts: dict[str, tuple[str, ...]] = {}
        self.users: Counter[str] = Counter()  # pins per version
        self.bytes = 0
        self.changed = asyncio.Event()
        self.failing = False
        self.writing = threading.Lock()
        self.saves = self.written = 0
        self.stored: set[str] = set()  # versions whose files are good; only the writer touches it

    def get(self, key: bytes) -> Filled | None:
        """The template and version that `key` is pinned to."""
        try:
            pin = self.pins[key]
            self.pins.move_to_end(key)
            parts = self.texts[pin.version]
        except KeyError:  # there is none, or it went meanwhile: a large body is filled in by a thread
            return None
        pin.used = self.clock()
        return Filled(prefix=pin.prefix, version=pin.version, parts=parts)

    def put(self, key: bytes, filled: Filled) -> None:
        """Pin `key` to `filled`; the least recently used make room."""
        known = self.get(key)
        if weight(filled.parts) > self.text_limit or (known and known.version == filled.version):
            return
        self.insert(key, Pin(prefix=filled.prefix, version=filled.version, used=self.clock()), filled.parts)
        self.trim()
        self.changed.set()

    def trim(self) -> None:
        """Drop the least recently used pins until the limits hold."""
        while len(self.pins) > self.limit or self.bytes > self.text_limit:
            self.drop(next(iter(self.pins)))

    def forget(self, max_age: float) -> None:
        """Drop what was not used for `max_age` seconds."""
        oldest = self.clock() - max_age
        for key in [key for key, pin in self.pins.items() if pin.used < oldest]:
            self.drop(key)
            self.changed.set()

    def insert(self, key: bytes, pin: Pin, parts: tuple[str, ...]) -> None:
        """Make `pin` the most recently used one."""
        if key in self.pins:
            self.drop(key)
        self.pins[key] = pin
        self.users[pin.version] += 1
        if pin.version not in self.texts:
            self.texts[pin.version] = parts
            self.bytes += weight(parts)

    def drop(self, key: bytes) -> None:
        """Take a pin out, and its version's text with the last pin that needs it."""
        version = self.pins.pop(key).version
        self.users[version] -= 1
        if not self.users[version]:
            del self.users[version]
            self.bytes -= weight(self.texts.pop(version))

    def statistics(self) -> PinStatistics:
        """Counts only; the keys say nothing and the texts are private."""
        return PinStatistics(pins=len(self.pins), versions=len(self.texts), bytes=self.bytes)

    # On disk

    async def load(self) -> None:
        """Read what was saved; what is broken or missing is left out, with a line in the log."""
        if self.folder is None:
            return
        try:
            self.take(*await files.away(read_state, self.folder))
        except FileNotFoundError:
            return
        except (OSError, ValueError, files.Stuck) as error:  # msgspec's errors are ValueErrors
            said = "the pins in %s cannot be read and are collected anew: %s"
            log.warning(said, self.folder, files.in_short(error))

    def take(self, index: Index, texts: Mapping[str, tuple[str, ...]]) -> None:
        """Pin what is in `index`, as far as there are `texts` for it."""
        for key, pin in index.pins:
            if pin.version in texts:
                self.insert(key, pin, texts[pin.version])
                self.stored.add(pin.version)
        self.trim()

    async def run(self) -> None:
        """Keep the disk up to date: a service that never ends by itself."""
        clock = asyncio.get_running_loop().time
        due = -math.inf
        while True:
            await self.changed.wait()
            await asyncio.sleep(max(DELAY, due - clock()))
            await self.flush()
            due = clock() + PAUSE

    async def flush(self) -> None:
        """Write now, in a worker thread. A fault is logged once and tried again with the next pin."""
        try:
            await files.away(self.write, *self.state())
        except files.Stuck as error:
            self.fault(error)

    def state(self) -> tuple[int, Index, dict[str, tuple[str, ...]]]:
        """What is to be written, at this moment."""
        self.changed.clear()
        self.saves += 1
        pins = [(key, Pin(pin.prefix, pin.version, pin.used)) for key, pin in self.pins.items()]
        return self.saves, Index(LAYOUT, pins), dict(self.texts)

    def write(self, number: int, index: Index, texts: dict[str, tuple[str, ...]]) -> None:
        """Write a state, unless a newer one (a higher `number`) was written already."""
        if self.folder is None:
            return
        if not self.writing.acquire(timeout=files.PATIENCE):  # a write that was left behind has it
            raise files.Stuck(str(self.folder))
        try:
            if number > self.written:
                write_state(self.folder, index, texts, stored=self.stored)
                self.failing, self.written = False, number
        except OSError as error:
            self.fault(error)
        finally:
            self.writing.release()

    def fault(self, error: Exception) -> None:
        """Say once that pins cannot be kept."""
        if not self.failing:
            said = "the pins cannot be kept in %s: %s; turns after a restart may miss"
            log.warning(said, self.folder, files.in_short(error))
        self.failing = True


def weight(parts: tuple[str, ...]) -> int:
    """The bytes that a version's text takes, about."""
    return sum(len(part.encode()) for part in parts)


def read_state(folder: Path) -> tuple[Index, dict[str, tuple[str, ...]]]:
    """What was saved, with the texts that are whole. OSError, ValueError, Stuck."""
    index = msgspec.msgpack.decode(files.read(folder / INDEX, most=LARGEST), type=Index)
    if index.layout != LAYOUT:
        raise ValueError(f"they are of another layout ({index.layout})")
    versions = {pin.version for _, pin in index.pins}
    return index, {version: parts for version in versions if (parts := read_text(folder, version)) is not None}


def read_text(folder: Path, version: str) -> tuple[str, ...] | None:
    """A version's text; None if it is missing, broken, or not what its name says."""
    try:
        parts = msgspec.msgpack.decode(files.read(folder / f"{TEXT}{version}", most=LARGEST), type=tuple[str, ...])
    except (OSError, ValueError) as error:
        log.warning("version %s of a template cannot be read, its pins are dropped: %s", version, error)
        return None
    if version_of(parts) != version:
        log.warning("version %s of a template is not what it was, its pins are dropped", version)
        return None
    return parts


def write_state(folder: Path, index: Index, texts: dict[str, tuple[str, ...]], *, stored: set[str]) -> None:
    """New texts first, then the index that names them, then what is not needed goes: a crash in between loses nothing.

    `stored` are the versions whose files are known to be good.
    """
    with files.touching(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for version in texts.keys() - stored:
        files.write_whole(folder / f"{TEXT}{version}", msgspec.msgpack.encode(texts[version]))
        stored.add(version)
    files.write_whole(folder / INDEX, msgspec.msgpack.encode(index))
    wanted = {INDEX, *(f"{TEXT}{version}" for version in texts)}
    for entry in files.listed(folder):
        if entry.name not in wanted and entry.name.startswith((TEXT, files.UNFINISHED)):
            (folder / entry.name).unlink(missing_ok=True)
            stored.discard(entry.name.removeprefix(TEXT))
