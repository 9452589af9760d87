"""Taking a content coding off, as the bytes come or all at once, and never more than a bound.

What an answer says of itself (its end, its figures, its error) can be read only in plain text, and some engines
compress. The client gets the bytes as the engine sent them; what is plain here is our own look at them. It raises
nothing (`Unpacker`, `decoded`): what cannot be read is empty.

A request's body goes on in plain (`plain`), for templates are filled in and `id_slot` is taken out in plain text, and
an engine must not read what we could not. So there every doubt is an error: a coding that we do not know, an end that
is missing, bytes after the end. And a body may come from anywhere: a kilobyte may become a gigabyte, so it is opened
block by block, and what grows past the bound is refused before it is there. Pure: no loop, no socket.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from itertools import chain
from typing import Any, Protocol

from bioproxy.errors import RequestError
from bioproxy.wire.http1 import judge
from bioproxy.wire.http1.target import shown

MOST = 4 << 20  # bytes that one piece may become; what becomes more is no text

Step = Callable[[bytes, int], tuple[bytes, bool]]  # a piece and a bound: what it becomes, and whether that is not all


@cache
def brotli() -> Any:
    """Imported when the first body needs it, like zstd: together they are 1.5 MB that most programs never use."""
    return import_module("brotli")


@cache
def zstd() -> Any:
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def broken() -> tuple[type[Exception], ...]:
    """What the libraries raise for a body that is not what its coding says."""
    return zlib.error, brotli().error, zstd().ZstdError, EOFError, ValueError


class Unpacker:
    """Takes a coding off piece by piece. From the first piece that cannot be read, or becomes too much, all is b""."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.broken = False

    def __call__(self, data: bytes, limit: int = MOST) -> bytes:
        """What this piece becomes, `limit` bytes at most."""
        if self.broken:
            return b""
        try:
            plain, self.broken = self.step(data, limit)
        except broken():
            self.broken = True
            return b""
        return plain


def unpacker(coding: str) -> Unpacker | None:
    """What takes `coding` (a Content-Encoding) off; None if there is none, or one that we do not know."""
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return Unpacker(inflating(zlib.MAX_WBITS | 16))
        case "deflate":
            return Unpacker(deflated())
        case "br":
            return Unpacker(brotli_step())
        case "zstd":
            return Unpacker(zstd_step())
        case _:
            return None


def inflating(window: int) -> Step:
    opened = zlib.decompressobj(window)

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        return opened.decompress(data, limit), bool(opened.unconsumed_tail)

    return step


def deflated() -> Step:
    """`deflate` is zlib's format by the standard, and a bare stream by some senders: the first two bytes show which."""
    first = b""
    chosen: Step | None = None

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        nonlocal first, chosen
        if chosen is None:
            data = first = first + data
            if len(first) < 2:
                return b"", False
            chosen = inflating(window_of(first))
        return chosen(data, limit)

    return step


def window_of(first: bytes) -> int:
    """Which of its two formats `deflate` is here, as zlib wants to be told."""
    is_zlib = len(first) > 1 and first[0] & 15 == zlib.DEFLATED and int.from_bytes(first[:2]) % 31 == 0
    return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS


def brotli_step() -> Step:
    opened = brotli().Decompressor()

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        plain = opened.process(data, output_buffer_limit=limit)
        return plain, not (opened.can_accept_more_data() or opened.is_finished())

    return step


def zstd_step() -> Step:
    opened = zstd().ZstdDecompressor()

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        plain = opened.decompress(data, limit)
        return plain, not (opened.needs_input or opened.eof)

    return step


def decoded(body: bytes, coding: str, *, limit: int) -> bytes | None:
    """A body without its Content-Encoding, `limit` bytes at most; None if it cannot be taken off.

    It may be cut at its end.
    """
    if coding.strip().lower() in {"", "identity"}:
        return body
    take_off = unpacker(coding)
    if take_off is None:
        return None
    return take_off(body, limit)[:limit] or None


# A request's body

CODINGS = ("gzip", "deflate", "br", "zstd")
MOST_CODINGS = 4  # one over the other
MOST_MEMBERS = 10_000  # of gzip, or frames of zstd: each may be empty
BLOCK = 64 << 10  # bytes in, and about as many out
WINDOW = 23  # 8 MiB: what RFC 9659 allows in HTTP, so that a few bytes cannot ask for a gigabyte of memory


class Decompressor(Protocol):
    """What zlib and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether its end was read."""

    @property
    def unused_data(self) -> bytes:
        """What came after the end."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """What these bytes become, `max_length` at most; the rest is still to be asked for."""


def codings_of(values: Iterable[bytes]) -> list[str]:
    """The codings that Content-Encoding headers name, in the order in which they were put on; RequestError (415)."""
    words = (word.strip() for value in values for word in value.split(b","))
    named = [word.decode("latin-1").lower() for word in words if word.lower() not in {b"", b"identity"}]
    found = ["gzip" if name == "x-gzip" else name for name in named]
    unknown = next((name for name in found if name not in CODINGS), None)
    if unknown is None and len(found) <= MOST_CODINGS:
        return found
    what = f"its coding {shown(unknown.encode())}" if unknown is not None else f"more than {MOST_CODINGS} codings"
    raise RequestError(
        f"the body cannot be read with {what} (Content-Encoding); send it plain, or as one of {', '.join(CODINGS)}",
        status=415,
    )


def plain(body: bytes, codings: Sequence[str], *, limit: int) -> Iterator[bytes]:
    """The body without its codings, in blocks; RequestError for what is broken (400) or longer than `limit` (413)."""
    blocks: Iterator[bytes] = (body[at : at + BLOCK] for at in range(0, len(body), BLOCK))
    for coding in reversed(codings):
        blocks = bounded(OPENERS[coding](blocks), coding, limit=limit)
    return blocks


def bounded(blocks: Iterator[bytes], coding: str, *, limit: int) -> Iterator[bytes]:
    """What one coding becomes: what lies under it must not grow past the limit either."""
    left = limit
    try:
        for block in blocks:
            left -= len(block)
            if left < 0:
                raise judge.too_large(limit)
            yield block
    except broken() as error:
        raise RequestError(f"the body is not whole {coding}, as its Content-Encoding says: {error}") from error


def opened(begin: Callable[[], Decompressor], most: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """What zlib or zstd make of the blocks: `most` parts, one after the other, and nothing else."""
    part, parts = begin(), 1
    for block in blocks:
        rest = block
        while rest:
            if part.eof:
                part, parts = begin(), parts + 1
            if parts > most:
                raise ValueError("something follows its end")
            yield from taken(part, rest)
            rest = part.unused_data if part.eof else b""
    if not part.eof:
        raise EOFError("its end is missing")


def taken(part: Decompressor, data: bytes) -> Iterator[bytes]:
    """What one block becomes, in blocks."""
    full = True
    while data or full:
        piece = part.decompress(data, BLOCK)
        full = len(piece) == BLOCK and not part.eof
        data = b"" if part.eof else getattr(part, "unconsumed_tail", b"")  # zstd keeps what it has not read
        if piece:
            yield piece


def deflate_opened(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """As `deflated` has it: with zlib's two bytes before it, or bare."""
    first = next(blocks, b"")
    if len(first) == 1:
        first += next(blocks, b"")
    return opened(partial(zlib.decompressobj, window_of(first)), 1, chain([first], blocks))


def brotli_opened(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """What brotli makes of the blocks; what follows its end is an error of its own."""
    part = brotli().Decompressor()
    for block in blocks:
        piece = part.process(block, output_buffer_limit=BLOCK)
        while piece or not part.can_accept_more_data():
            yield piece
            piece = b"" if part.is_finished() else part.process(b"", output_buffer_limit=BLOCK)
    if not part.is_finished():
        raise EOFError("its end is missing")


def zstd_opened(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same for zstd, with a bound on the memory that a frame may ask for."""
    options = {zstd().DecompressionParameter.window_log_max: WINDOW}
    return opened(partial(zstd().ZstdDecompressor, options=options), MOST_MEMBERS, blocks)


OPENERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "gzip": partial(opened, partial(zlib.decompressobj, zlib.MAX_WBITS | 16), MOST_MEMBERS),
    "deflate": deflate_opened,
    "br": brotli_opened,
    "zstd": zstd_opened,
}
