"""Requests and answers in full, to see what really went over the wire.

They are private text, so they stay in memory, are never logged, and go with the program. The newest are kept,
compressed, up to `captureBuffer` MB (with one engine up to `ui.captures`); the oldest make room. Credentials are taken
out of the headers before anything is kept, and so are bodies that cannot be read in a browser: sound and pictures (the
list is llama-swap's). A request that failed has no answer here, its row of the activity table says why.

Everything is kept as it came, and put into words when it is asked for: most captures never are. When the buffer is
full, what is large and was not compressed yet is, all of it in one go in a thread; only then the oldest make room.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.activity import Capture, Record
from bioproxy.front import shown
from bioproxy.wire.coding import decoded

log = logging.getLogger(__name__)

LARGE = 4 << 10  # bytes of bodies from which on compressing them saves something
MOST_DECODED = 64 << 20  # bytes that a compressed answer may become
PLACE = 160  # bytes of a number and its place in the table, which grows ahead of what is in it
ROUNDED = 8  # bytes by which the allocator rounds up, on average
MOST_PENDING = 4  # times the buffer, in bytes, that is kept while some of it is compressed
NO_REQUEST_BODY = ("/audio/voices", "/audio/transcriptions", "/images/edits", "/sdapi/v1/img2img")
NO_RESPONSE_BODY = (
    "/audio/speech", "/images/generations", "/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/img2img",
)  # fmt: skip


class Light(msgspec.Struct, frozen=True, gc=False):
    """A capture as it came: what is needed to show it, without secrets, in few objects; there are thousands of them.

    A body that cannot be read in a browser is None.
    """

    path: str
    status: int
    request_headers: bytes
    request_body: bytes | None
    response_headers: bytes
    response_body: bytes | None
    original_body: bytes | None = None

    @property
    def large(self) -> bool:
        return sum(len(body or b"") for body in (self.request_body, self.response_body, self.original_body)) >= LARGE


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One capture as the API shows it; bodies are base64 in JSON, and null if they are left out.

    `req_body` is what the model got. If a rule about clients changed that, `req_original` is what the client sent.
    """

    id: int
    req_path: str
    req_headers: dict[str, str]
    req_body: bytes | None
    resp_headers: dict[str, str]
    resp_body: bytes | None
    req_original: bytes | msgspec.UnsetType = msgspec.UNSET


class CaptureStatistics(msgspec.Struct, frozen=True):
    """How many captures are kept, in how many bytes of how many, and how many were too large to keep."""

    kept: int
    bytes: int
    limit: int
    skipped: int


class Captures:
    """The newest captures by the id of their activity row, in `limit` bytes; 0: none.

    `configure` is called again by a reload.
    """

    def __init__(self, limit: int) -> None:
        self.packed: dict[int, bytes | Light] = {}
        self.size = 0
        self.skipped = 0
        self.loose: dict[int, Light] = {}  # those of them that are large, and not compressed
        self.packing: asyncio.Task[None] | None = None
        self.configure(limit)

    def configure(self, limit: int) -> None:
        self.limit = limit
        self.evict(self.limit)

    def add(self, identity: int, record: Record, capture: Capture) -> None:
        """Keep one. Returns at once."""
        if not self.limit:
            return
        light = light_of(record, capture)
        size = size_of(light)
        if size > MOST_PENDING * self.limit:
            self.skip(identity, size)
            return
        self.packed[identity] = light
        self.size += size
        if light.large:
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
        return identity in self.packed

    async def json(self, identity: int) -> bytes | None:
        """A capture as JSON, or None if there is none (any more)."""
        if self.packing is not None:
            await asyncio.wait([self.packing])
        packed = self.packed.get(identity)
        return None if packed is None else await asyncio.to_thread(unpacked, identity, packed)

    async def close(self) -> None:
        if self.packing is not None:
            await aio.finish([self.packing])
        self.packed.clear()
        self.loose.clear()
        self.size = 0

    def statistics(self) -> CaptureStatistics:
        """The counts of now, and of what was left out since the start."""
        return CaptureStatistics(len(self.packed), self.size, self.limit, self.skipped)


def light_of(record: Record, capture: Capture) -> Light:
    """What of a capture may be kept."""
    path = record.req_path or record.path
    answered = record.status == 200 and not path.endswith(NO_RESPONSE_BODY)
    return Light(
        path,
        record.status,
        shown.packed(capture.request_headers),
        None if path.endswith(NO_REQUEST_BODY) else capture.request_body,
        shown.packed(capture.response_headers),
        capture.response_body if answered else None,
        capture.original_body or None,
    )


def pack(batch: Mapping[int, Light]) -> dict[int, bytes]:
    zstd = compressor()
    return {identity: zstd.compress(msgspec.msgpack.encode(kept(identity, one)), 1) for identity, one in batch.items()}


def size_of(packed: bytes | Light) -> int:
    """The bytes of memory that one takes, with its objects and its place in the table: small ones are mostly that."""
    parts: tuple[str | bytes | None, ...] = ()
    if isinstance(packed, Light):
        parts = packed.path, packed.request_headers, packed.request_body, packed.response_headers, packed.response_body
        parts += () if packed.original_body is None else (packed.original_body,)
    return PLACE + sum(map(sys.getsizeof, (packed, *parts))) + ROUNDED * len(parts)


def unpacked(identity: int, packed: bytes | Light) -> bytes:
    if isinstance(packed, Light):
        return msgspec.json.encode(kept(identity, packed))
    return msgspec.json.encode(msgspec.msgpack.decode(compressor().decompress(packed), type=Kept))


def compressor() -> Any:
    """The module zstd, which a start is spared."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def kept(identity: int, light: Light) -> Kept:
    """A capture in words; an answer that came compressed is made readable, if it can be."""
    headers, body = shown.shown(shown.unpacked(light.response_headers)), light.response_body
    encoding = next((value for name, value in headers.items() if name.lower() == "content-encoding"), "")
    if body is not None and encoding and (plain := decoded(body, encoding, limit=MOST_DECODED)) is not None:
        body = plain
        headers.pop("Content-Encoding", None)
    return Kept(
        id=identity,
        req_path=light.path,
        req_headers=shown.shown(shown.unpacked(light.request_headers)),
        req_body=light.request_body,
        resp_headers=headers,
        resp_body=body,
        req_original=light.original_body or msgspec.UNSET,
    )
