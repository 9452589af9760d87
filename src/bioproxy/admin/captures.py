"""Requests and answers in full, to see what really went over the wire.

They are private text, so they stay in memory, are never logged, and go with the program. The newest are kept,
compressed, up to `captureBuffer` MB; the oldest make room. Credentials are taken out of the headers before
anything is kept, and so are bodies that cannot be read in a browser: sound and pictures (the list is llama-swap's). A
request that failed has no answer here, its row of the activity table says why.

What is large is compressed in a thread, and counts as kept meanwhile. What is small is kept as it came, and put into
words when it is asked for: most captures never are.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import msgspec

from bioproxy import aio
from bioproxy.activity import Capture, Record
from bioproxy.front import shown
from bioproxy.wire.coding import decoded

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = logging.getLogger(__name__)

INLINE = 32 << 10  # bytes of bodies that are kept as they came
MOST_DECODED = 64 << 20  # bytes that a compressed answer may become
PLACE = 160  # bytes of a number and its place in the table, which grows ahead of what is in it
ROUNDED = 8  # bytes by which the allocator rounds up, on average
MOST_PENDING = 4  # times the buffer, in bytes, that may wait to be compressed
NO_REQUEST_BODY = ("/audio/voices", "/audio/transcriptions", "/images/edits", "/sdapi/v1/img2img")
NO_RESPONSE_BODY = (
    "/audio/speech", "/images/generations", "/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/img2img",
)  # fmt: skip


class Light(msgspec.Struct, frozen=True, gc=False):
    """A small capture: what is needed to show it, without secrets, in few objects; there are thousands of them."""

    path: str
    status: int
    request_headers: bytes
    request_body: bytes
    response_headers: bytes
    response_body: bytes

    def capture(self) -> Capture:
        return Capture(
            request_headers=shown.unpacked(self.request_headers),
            request_body=self.request_body,
            response_headers=shown.unpacked(self.response_headers),
            response_body=self.response_body,
        )


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One capture as the API shows it; bodies are base64 in JSON, and null if they are left out."""

    id: int
    req_path: str
    req_headers: dict[str, str]
    req_body: bytes | None
    resp_headers: dict[str, str]
    resp_body: bytes | None


class CaptureStatistics(msgspec.Struct, frozen=True):
    """How many captures are kept, in how many bytes of how many, and how many were too large to keep."""

    kept: int
    bytes: int
    limit: int
    skipped: int


class Captures:
    """The newest captures by the id of their activity row. `configure` is called again by a reload; 0 MB: none."""

    def __init__(self, megabytes: int) -> None:
        self.packed: dict[int, bytes | Light] = {}
        self.size = 0
        self.skipped = 0
        self.waiting: dict[int, asyncio.Task[None]] = {}
        self.waiting_bytes = 0
        self.configure(megabytes)

    def configure(self, megabytes: int) -> None:
        self.limit = max(0, megabytes) << 20
        self.evict()

    def add(self, identity: int, record: Record, capture: Capture) -> None:
        """Keep one. Returns at once."""
        if not self.limit:
            return
        size = len(capture.request_body) + len(capture.response_body)
        if size <= INLINE and not encoding_of(capture):
            light = Light(
                record.req_path or record.path,
                record.status,
                shown.packed(capture.request_headers),
                capture.request_body,
                shown.packed(capture.response_headers),
                capture.response_body,
            )
            self.keep(identity, light)
        elif self.waiting_bytes + size > MOST_PENDING * self.limit:
            self.skip(identity, size)
        else:
            self.waiting_bytes += size
            work = self.keep_later(identity, record, capture, size)
            self.waiting[identity] = aio.spawn(work, name=f"capture {identity}")

    async def keep_later(self, identity: int, record: Record, capture: Capture, size: int) -> None:
        """Compress one in a thread, then keep it."""
        try:
            packed = await asyncio.to_thread(pack, identity, record, capture)
            self.keep(identity, packed)
        except Exception:
            log.exception("the capture of request %d could not be kept", identity)
        finally:
            self.waiting_bytes -= size
            del self.waiting[identity]

    def keep(self, identity: int, packed: bytes | Light) -> None:
        """Put one in, and the oldest out until all fit; one that alone is too large is left out."""
        size = size_of(packed)
        if size > self.limit:
            self.skip(identity, size)
            return
        self.packed[identity] = packed
        self.size += size
        if self.size > self.limit:
            self.evict()

    def skip(self, identity: int, size: int) -> None:
        """One is too large."""
        self.skipped += 1
        log.debug(
            "the capture of request %d has %d bytes and captureBuffer is %d: left out", identity, size, self.limit
        )

    def evict(self) -> None:
        """Take the oldest out until the rest fits."""
        while self.size > self.limit:
            oldest = next(iter(self.packed))
            self.size -= size_of(self.packed.pop(oldest))

    def has(self, identity: int) -> bool:
        """Whether a row's capture is kept, or about to be."""
        return identity in self.packed or identity in self.waiting

    async def json(self, identity: int) -> bytes | None:
        """A capture as JSON, or None if there is none (any more)."""
        if (task := self.waiting.get(identity)) is not None:
            await asyncio.wait([task])
        packed = self.packed.get(identity)
        return None if packed is None else await asyncio.to_thread(unpacked, identity, packed)

    async def close(self) -> None:
        await aio.finish(self.waiting.values())
        self.waiting.clear()  # one that was cancelled before it began has not done so itself
        self.waiting_bytes = 0
        self.packed.clear()
        self.size = 0

    def statistics(self) -> CaptureStatistics:
        """The counts of now, and of what was left out since the start."""
        return CaptureStatistics(len(self.packed), self.size, self.limit, self.skipped)


def encoding_of(capture: Capture) -> str:
    """The answer's Content-Encoding; "" if it has none."""
    for name, value in capture.response_headers:
        if name.lower() == b"content-encoding":
            return value.decode("latin-1")
    return ""


def pack(identity: int, record: Record, capture: Capture) -> bytes:
    whole = kept(identity, record.req_path or record.path, record.status, capture)
    return zstd.compress(msgspec.msgpack.encode(whole), 1)


def size_of(packed: bytes | Light) -> int:
    """The bytes of memory that one takes, with its objects and its place in the table: small ones are mostly that."""
    parts: tuple[str | bytes, ...] = ()
    if isinstance(packed, Light):
        parts = packed.path, packed.request_headers, packed.request_body, packed.response_headers, packed.response_body
    return PLACE + sum(map(sys.getsizeof, (packed, *parts))) + ROUNDED * len(parts)


def unpacked(identity: int, packed: bytes | Light) -> bytes:
    if isinstance(packed, Light):
        return msgspec.json.encode(kept(identity, packed.path, packed.status, packed.capture()))
    return msgspec.json.encode(msgspec.msgpack.decode(zstd.decompress(packed), type=Kept))


def kept(identity: int, path: str, status: int, capture: Capture) -> Kept:
    """What of a capture may be kept, readable if it can be made so."""
    body: bytes | None = None
    headers = shown.shown(capture.response_headers)
    if status == 200 and not path.endswith(NO_RESPONSE_BODY):
        body = capture.response_body
        if encoding := encoding_of(capture):
            plain = decoded(body, encoding, limit=MOST_DECODED)
            if plain is not None:
                body = plain
                headers.pop("Content-Encoding", None)
    return Kept(
        id=identity,
        req_path=path,
        req_headers=shown.shown(capture.request_headers),
        req_body=None if path.endswith(NO_REQUEST_BODY) else capture.request_body,
        resp_headers=headers,
        resp_body=body,
    )
