"""Taking content codings off."""

from __future__ import annotations

import gzip
import sys
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.wire.coding import decoded, unpacker

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b'data: {"x": 1}\n\n' * 500 + b"data: [DONE]\n\n"


def bare(data: bytes) -> bytes:
    """A deflate stream without zlib's frame, as some senders have it."""
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(data) + squeeze.flush()


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(("coding", "pack"), [*PACKERS.items(), ("deflate", bare), (" X-GZIP", gzip.compress)])
def test_pieces_give_the_whole(coding: str, pack: object, size: int) -> None:
    """However a body is cut, what its pieces become is the body."""
    packed = pack(TEXT)  # type: ignore[operator] # one of PACKERS
    take_off = unpacker(coding)
    assert take_off is not None
    assert b"".join(take_off(packed[at : at + size]) for at in range(0, len(packed), size)) == TEXT
    assert decoded(packed, coding, limit=1 << 20) == TEXT


@pytest.mark.parametrize("coding", PACKERS)
def test_a_bomb_is_not_opened(coding: str) -> None:
    """A piece that becomes more than the bound is given up, and all that follows it."""
    packed = PACKERS[coding](b"x" * (64 << 20))
    take_off = unpacker(coding)
    assert take_off is not None
    assert len(take_off(packed, 1 << 20)) <= 16 << 20  # brotli's blocks are as large as that
    assert take_off.broken
    assert take_off(packed) == b""
    assert len(decoded(packed, coding, limit=1000) or b"") == 1000


@given(st.sampled_from([*PACKERS, "deflate"]), st.lists(st.binary(), max_size=4))
def test_nothing_raises(coding: str, pieces: list[bytes]) -> None:
    """What is no such body is nothing."""
    take_off = unpacker(coding)
    assert take_off is not None
    for piece in pieces:
        take_off(piece)


def test_unknown_codings() -> None:
    """None at all is no coding, and what we do not know cannot be read."""
    assert (unpacker(""), unpacker("identity"), unpacker("gzip, br"), unpacker("compress")) == (None,) * 4
    assert decoded(b"abc", "Identity ", limit=2) == b"abc"
    assert decoded(b"abc", "compress", limit=10) is None
