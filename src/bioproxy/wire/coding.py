"""Taking a content coding off, as the bytes come or all at once, and never more than a bound.

What an answer says of itself (its end, its figures, its error) can be read only in plain text, and some engines
compress. The client gets the bytes as the engine sent them; what is plain here is our own look at them. Nothing here
raises: what cannot be read is empty. Pure: no loop, no socket.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 4 << 20  # bytes that one piece may become; what becomes more is no text
BROKEN = (zlib.error, brotli.error, zstd.ZstdError, EOFError, ValueError)

Step = Callable[[bytes, int], tuple[bytes, bool]]  # a piece and a bound: what it becomes, and whether that is not all


class Unpacker:
    """Takes a coding off piece by piece. From the first piece that cannot be read, or becomes too much, all is b""."""

    __slots__ = ("broken", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.broken = False

    def __call__(self, data: bytes, limit: int = MOST) -> bytes:
        """What this piece becomes, `limit` bytes at most."""
        if self.broken:
            return b""
        try:
            plain, self.broken = self.step(data, limit)
        except BROKEN:
            self.broken = True
            return b""
        return plain


def unpacker(coding: str) -> Unpacker | None:
    """What takes `coding` (a Content-Encoding) off; None where there is none, or one that we do not know."""
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
    """A step of zlib."""
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
            is_zlib = first[0] & 15 == zlib.DEFLATED and int.from_bytes(first[:2]) % 31 == 0
            chosen = inflating(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)
        return chosen(data, limit)

    return step


def brotli_step() -> Step:
    """A step of brotli."""
    opened = brotli.Decompressor()

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        plain = opened.process(data, output_buffer_limit=limit)
        return plain, not (opened.can_accept_more_data() or opened.is_finished())

    return step


def zstd_step() -> Step:
    """A step of zstd."""
    opened = zstd.ZstdDecompressor()

    def step(data: bytes, limit: int) -> tuple[bytes, bool]:
        plain = opened.decompress(data, limit)
        return plain, not (opened.needs_input or opened.eof)

    return step


def decoded(body: bytes, coding: str, *, limit: int) -> bytes | None:
    """A body without its Content-Encoding, `limit` bytes at most; None where it cannot be taken off.

    It may be cut at its end.
    """
    if coding.strip().lower() in {"", "identity"}:
        return body
    take_off = unpacker(coding)
    if take_off is None:
        return None
    return take_off(body, limit)[:limit] or None
