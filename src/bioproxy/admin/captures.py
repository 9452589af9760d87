"""Requests and answers in full, to see what really went over the wire.

They are private text, never logged. Credentials are taken out before anything is kept: headers that hold some
(front/shown.py), and the client's own key wherever it stands in a body; capture_text.py has the rest. Bodies that
cannot be read in a browser are left out: sound and pictures (the list is llama-swap's). A request that failed has no
answer here, its row of the activity table says why.

The newest are kept in memory, compressed, up to `captureBuffer` MB (with one engine up to `ui.captures`); the oldest
make room. With `captures.disk` they are on disk, too (capture_folder.py), and outlive the program.

In memory everything is kept as it came. When the buffer is full, what is large and was not compressed yet is, all of it
in one go in a thread; only then the oldest make room.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec
from msgspec.structs import replace

from bioproxy import aio
from bioproxy.activity import Capture, Record
from bioproxy.admin.capture_folder import CaptureFolder, FolderStatistics
from bioproxy.admin.capture_text import Kept, Light, pack, unpacked
from bioproxy.front import shown

log = logging.getLogger(__name__)

LARGE = 4 << 10  # bytes of bodies from which on compressing them saves something
PLACE = 160  # bytes of a number and its place in the table, which grows ahead of what is in it
ROUNDED = 8  # bytes by which the allocator rounds up, on average
NO_REQUEST_BODY = ("/audio/voices", "/audio/transcriptions", "/images/edits", "/sdapi/v1/img2img")
NO_RESPONSE_BODY = (
    "/audio/speech", "/images/generations", "/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/img2img",
)  # fmt: skip
MOST_PENDING = 4  # times the buffer, in bytes, that is kept while some of it is compressed


class CaptureStatistics(msgspec.Struct, frozen=True):
    """How many captures memory has, in how many bytes of how many, and how many were too large for it.

    `disk` is the same of the folder.
    """

    kept: int
    bytes: int
    limit: int
    skipped: int
    disk: FolderStatistics | None


class Captures:
    """The newest captures by the id of their activity row, in `limit` bytes of memory (0: none), and in a `folder`.

    `configure` is called again by a reload. `most`: bytes of an answer that may be kept, 0: nothing is.
    """

    def __init__(self, limit: int, folder: CaptureFolder | None = None) -> None:
        self.folder = folder
        self.packed: dict[int, bytes | Light] = {}
        self.size = 0
        self.skipped = 0
        self.loose: dict[int, Light] = {}  # those of them that are large, and not compressed
        self.packing: asyncio.Task[None] | None = None
        self.configure(limit)

    def configure(self, limit: int) -> None:
        self.limit = limit
        self.writes = 0 if self.folder is None else self.folder.most
        self.most = max(limit, self.writes)
        self.evict(self.limit)

    def add(self, identity: int, record: Record, capture: Capture) -> None:
        """Keep one. Returns at once."""
        if not self.most:
            return
        light = light_of(record, capture)
        size = size_of(light)
        if self.writes and self.folder is not None:
            self.folder.add(identity, record, light, size)
        if not self.limit:
            return
        if size > MOST_PENDING * self.limit:
            self.skip(identity, size)
            return
        self.packed[identity] = light
        self.size += size
        if is_large(light):
            self.loose[identity] = light
        if self.size > self.limit:
            self.make_room()

    def make_room(self) -> None:
        """Compress what is large, then let the oldest go."""
        if self.packing is None and self.loose:
            self.packing = aio.spawn(self.pack_loose(), name="captures are compressed")
        self.evict(self.limit if self.packing is None else MOST_PENDING * self.limit)

    async def pack_loose(self) -> None:
        """Compress in a thread what was loose at the beginning, and let the oldest go until all fit."""
        batch, self.loose = self.loose, {}
        try:
            for identity, packed in (await asyncio.to_thread(pack, batch)).items():
                if self.packed.get(identity) is batch[identity]:
                    self.replace(identity, packed)
        except Exception:
            log.exception("captures could not be compressed")
        finally:
            self.packing = None
            self.evict(self.limit)

    def replace(self, identity: int, packed: bytes) -> None:
        """Put the compressed form of one in its place; one that alone is too large is left out."""
        size = size_of(packed)
        self.size += size - size_of(self.packed[identity])
        self.packed[identity] = packed
        if size > self.limit:
            del self.packed[identity]
            self.size -= size
            self.skip(identity, size)

    def skip(self, identity: int, size: int) -> None:
        """One is too large."""
        self.skipped += 1
        log.debug("the capture of request %d has %d bytes, and all may have %d: left out", identity, size, self.limit)

    def evict(self, limit: int) -> None:
        """Take the oldest out until the rest fits."""
        while self.size > limit:
            oldest = next(iter(self.packed))
            self.size -= size_of(self.packed.pop(oldest))
            self.loose.pop(oldest, None)

    def has(self, identity: int) -> bool:
        """Whether a row's capture is kept."""
        return identity in self.packed or (self.folder is not None and self.folder.has(identity))

    def numbers(self) -> list[int]:
        """Of the rows whose captures are kept, the oldest first."""
        return sorted({*self.packed, *(self.folder.numbers() if self.folder is not None else ())})

    async def kept(self, identity: int) -> Kept | None:
        """A capture in words, or None if there is none (any more)."""
        if self.packing is not None:
            await asyncio.wait([self.packing])
        if (packed := self.packed.get(identity)) is not None:
            return await asyncio.to_thread(unpacked, identity, packed)
        return await self.folder.kept(identity) if self.folder is not None else None

    async def record(self, identity: int) -> Record | None:
        """The record of a request whose capture is on disk."""
        return await self.folder.record(identity) if self.folder is not None else None

    async def close(self) -> None:
        if self.packing is not None:
            await aio.finish([self.packing])
        self.packed.clear()
        self.loose.clear()
        self.size = 0
        if self.folder is not None:
            await self.folder.close()

    def statistics(self) -> CaptureStatistics:
        """The counts of now, and of what was left out since the start."""
        disk = self.folder.statistics() if self.folder is not None else None
        return CaptureStatistics(len(self.packed), self.size, self.limit, self.skipped, disk)


def light_of(record: Record, capture: Capture) -> Light:
    """What of a capture may be kept."""
    path = record.req_path or record.path
    answered = record.status == 200 and not path.endswith(NO_RESPONSE_BODY)
    if capture.secret:
        capture = without_key(capture)
    return Light(
        path,
        record.status,
        shown.packed(capture.request_headers),
        None if path.endswith(NO_REQUEST_BODY) else capture.request_body,
        shown.packed(capture.response_headers),
        capture.response_body if answered else None,
        capture.original_body or None,
    )


def without_key(capture: Capture) -> Capture:
    """It without the client's key: some clients tell it the model, too, and a page may have it in its address."""
    bodies, heads = ("request_body", "response_body", "original_body"), ("request_headers", "response_headers")

    def hidden(data: bytes) -> bytes:
        return data.replace(capture.secret, shown.HIDDEN)

    changed = {name: hidden(getattr(capture, name)) for name in bodies}
    return replace(
        capture,
        **changed,
        **{one: tuple((key, hidden(value)) for key, value in getattr(capture, one)) for one in heads},
    )


def size_of(packed: bytes | Light) -> int:
    """The bytes of memory that one takes, with its objects and its place in the table: small ones are mostly that."""
    parts: tuple[str | bytes | None, ...] = ()
    if isinstance(packed, Light):
        parts = packed.path, packed.request_headers, packed.request_body, packed.response_headers, packed.response_body
        parts += () if packed.original_body is None else (packed.original_body,)
    return PLACE + sum(map(sys.getsizeof, (packed, *parts))) + ROUNDED * len(parts)


def is_large(light: Light) -> bool:
    return sum(len(body or b"") for body in (light.request_body, light.response_body, light.original_body)) >= LARGE
