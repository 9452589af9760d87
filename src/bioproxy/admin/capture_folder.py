"""Captures on disk: a file for each, private, compressed, found again after a restart.

A file is the request's record, and after that the capture as the API shows it, so that what stands in a list is read
without the bodies. Its name is the number of the request's row. One worker thread writes, a quarter of a second after
the first one that waits; what waits is bounded (`MOST_WAITING`), so a disk that hangs costs captures and not memory.

Three things bound what is kept, and the oldest goes first: bytes on disk, age, number (`captures.*`). A disk that is
full, or gone, is told once; requests never hear of it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bioproxy import aio, files
from bioproxy.activity import Record
from bioproxy.admin.capture_text import Kept, Light, compressor, kept
from bioproxy.config.settings import Settings, among_strangers
from bioproxy.errors import in_words

log = logging.getLogger(__name__)

SUFFIX = ".capture"
HEAD = b"bpc1"  # what each file begins with; the length of the record follows in four bytes
LONGEST_HEAD = 1 << 20  # bytes of a record
MOST_WAITING = 64 << 20  # bytes that wait for the disk; what comes then is not kept
LARGEST = 64 << 20  # bytes of an answer that is kept
BLOCK = 4096  # bytes that a file takes at least
PAUSE = 0.25  # seconds that a capture may wait for more of them
LOOK = 600.0  # seconds between two looks for what is too old
LONGEST = 15.0  # seconds for the last writes


class Place(msgspec.Struct, frozen=True):
    """One file: its bytes on disk, and when it was written (unix time)."""

    bytes: int
    written: float


class FolderStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How many captures are on disk, in how many bytes of how many; how many were lost, and why ("": all is well)."""

    kept: int
    bytes: int
    limit: int
    lost: int
    fault: str


class CaptureFolder:
    """The files in `folder`, by the number of their row. The bounds are read when they count."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder, self.settings = folder, settings
        self.places: dict[int, Place] = {}  # the oldest first
        self.bytes = 0
        self.waiting: dict[int, tuple[Record, Light, int]] = {}
        self.held = 0  # bytes that wait
        self.lock = threading.Lock()  # over `waiting` and `held`, which both threads change
        self.worker = aio.Threads(1)
        self.scheduled = self.closed = False
        self.lost = 0
        self.fault = ""

    @property
    def most(self) -> int:
        """The longest answer that is kept; 0 if none is."""
        config = self.settings.config
        return 0 if among_strangers(config) else min(LARGEST, config.captures.disk)

    @property
    def newest(self) -> int:
        return max(self.places, default=0)

    # on the loop

    def add(self, identity: int, record: Record, light: Light, size: int) -> None:
        """Keep one that has so many bytes of memory. Returns at once."""
        if not self.most or self.closed:
            return
        with self.lock:
            if self.held + size > MOST_WAITING:
                self.fail(f"more than {MOST_WAITING >> 20} MiB wait for the disk", 1)
                return
            self.waiting[identity] = record, light, size
            self.held += size
        if not self.scheduled:
            self.scheduled = True
            asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def flush(self) -> None:
        self.scheduled = False
        if not self.closed:
            self.worker.submit(self.write)

    def has(self, identity: int) -> bool:
        return identity in self.places or identity in self.waiting

    def numbers(self) -> list[int]:
        """Of all that are kept."""
        return sorted({*self.places, *self.waiting})

    async def kept(self, identity: int) -> Kept | None:
        """One in words; None if there is none (any more)."""
        if (waits := self.waiting.get(identity)) is not None:
            return await asyncio.to_thread(kept, identity, waits[1])
        return await files.away(self.read, identity) if identity in self.places else None

    async def record(self, identity: int) -> Record | None:
        """The record of the request that one is of."""
        if (waits := self.waiting.get(identity)) is not None:
            return waits[0]
        return await files.away(self.read_record, identity) if identity in self.places else None

    async def run(self) -> None:
        """Let go of what is too old, also if nothing new comes: a service that never ends by itself."""
        while True:
            await asyncio.sleep(LOOK)
            await self.tidy()

    async def tidy(self) -> None:
        """Let go of what the bounds do not allow (any more)."""
        if self.places:
            await asyncio.get_running_loop().run_in_executor(self.worker, self.trim)

    async def close(self) -> None:
        """Write what waits."""
        self.closed = True
        try:
            async with asyncio.timeout(LONGEST):
                await asyncio.get_running_loop().run_in_executor(self.worker, self.write)
        except TimeoutError:
            log.warning("the last captures could not be written: %s does not answer", self.folder)
        finally:
            self.worker.shutdown(wait=False)

    def statistics(self) -> FolderStatistics:
        limit = self.settings.config.captures.disk
        return FolderStatistics(kept=len(self.places), bytes=self.bytes, limit=limit, lost=self.lost, fault=self.fault)

    # in a thread

    async def find(self) -> None:
        """Find what earlier runs left. Nothing is changed: the folder may be that of a program that runs."""
        try:
            await files.away(self.look)
        except (OSError, files.Stuck) as error:
            log.warning("earlier captures cannot be read: %s", error)

    def look(self) -> None:
        if files.found(self.folder) is None:
            return
        known: dict[int, Place] = {}
        for entry in files.listed(self.folder):
            number = entry.name.removesuffix(SUFFIX)
            if entry.name.endswith(SUFFIX) and number.isascii() and number.isdecimal():
                status = entry.stat()
                known[int(number)] = Place(on_disk(status.st_size), status.st_mtime)
        self.places = dict(sorted(known.items()))
        self.bytes = sum(place.bytes for place in known.values())

    async def start(self) -> tuple[tuple[int, Record], ...]:
        """Take what was found over; the newest of their records, as many as a table in memory may have."""
        await asyncio.get_running_loop().run_in_executor(self.worker, self.sweep)
        most = self.settings.dialect.metrics_max_in_memory
        numbers = [*self.places][-most:] if most else []
        return tuple(await files.away(lambda: [*self.records(numbers)]))

    def sweep(self) -> None:
        """Take away what a crash left half written, and what the bounds do not allow any more."""
        try:
            for entry in files.listed(self.folder) if self.places else ():
                if entry.name.startswith(files.UNFINISHED):
                    (self.folder / entry.name).unlink(missing_ok=True)
        except (OSError, files.Stuck) as error:
            self.fail(str(error), 0)
        self.trim()

    def records(self, numbers: Iterable[int]) -> Iterator[tuple[int, Record]]:
        for identity in numbers:
            if (record := self.read_record(identity)) is not None:
                yield identity, record

    def read(self, identity: int) -> Kept | None:
        """The capture in a file; a file that is gone or broken has none."""
        return self.parts(identity, whole=True)[1]

    def read_record(self, identity: int) -> Record | None:
        return self.parts(identity, whole=False)[0]

    def parts(self, identity: int, *, whole: bool) -> tuple[Record | None, Kept | None]:
        """What a file says: the record, and of the `whole` the capture."""
        try:
            with files.opened(self.path(identity)) as file:
                mark, length = file.read(len(HEAD)), int.from_bytes(file.read(4), "big")
                if mark != HEAD or length > LONGEST_HEAD:
                    raise ValueError("it is no capture, or one of another version")  # noqa: TRY301 - as what it reads
                record = msgspec.msgpack.decode(file.read(length), type=Record)
                body = compressor().decompress(file.read()) if whole else b""
                return record, msgspec.msgpack.decode(body, type=Kept) if whole else None
        except (OSError, ValueError, files.Stuck, compressor().ZstdError) as error:
            log.debug("the capture of request %d cannot be read: %s", identity, error)
            return None, None

    def path(self, identity: int) -> Path:
        return self.folder / f"{identity:012d}{SUFFIX}"

    def write(self) -> None:
        """Write all that waits, then let go of the oldest."""
        if not self.waiting:
            return
        for identity, (record, light, size) in [*self.waiting.items()]:
            try:
                self.write_one(identity, record, light)
            except OSError as error:
                self.fail(files.reason(error), 1)
            except files.Stuck as error:
                self.fail(error.message, 1)
            except Exception as error:
                log.exception("the capture of request %d cannot be written", identity)
                self.fail(in_words(error), 1)
            else:
                if self.fault:
                    log.warning("captures are written again")
                    self.fault = ""
            with self.lock:
                del self.waiting[identity]
                self.held -= size
        self.trim()

    def write_one(self, identity: int, record: Record, light: Light) -> None:
        """Write one file: whole or not at all, and for us alone. OSError, Stuck."""
        head = msgspec.msgpack.encode(record)
        body = compressor().compress(msgspec.msgpack.encode(kept(identity, light)), 1)
        data = b"".join((HEAD, len(head).to_bytes(4, "big"), head, body))
        with files.touching(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_whole(self.path(identity), data, durable=False)
        self.places[identity] = Place(on_disk(len(data)), time.time())
        self.bytes += on_disk(len(data))

    def trim(self) -> None:
        """Take the oldest away until what is left is allowed."""
        bounds, now = self.settings.config.captures, time.time()
        while self.places:
            oldest = next(iter(self.places))
            place = self.places[oldest]
            too_many = bounds.max_count and len(self.places) > bounds.max_count
            too_old = bounds.max_age and place.written < now - bounds.max_age
            if not (too_many or too_old or self.bytes > bounds.disk):
                return
            try:
                with files.touching(self.folder):
                    self.path(oldest).unlink(missing_ok=True)
            except (OSError, files.Stuck) as error:
                self.fail(str(error), 0)
                return
            del self.places[oldest]
            self.bytes -= place.bytes

    def fail(self, reason: str, count: int) -> None:
        """Captures are lost; the log says so once, until one is written again."""
        self.lost += count
        if not self.fault:
            log.warning("captures cannot be written to %s: %s; requests go on, and are not kept", self.folder, reason)
        self.fault = reason


def on_disk(size: int) -> int:
    """The bytes that a file of this size takes."""
    return -(-size // BLOCK) * BLOCK
