"""What a relay remembers of a body."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.wire.relay import KEPT, Tail


@given(st.lists(st.integers(min_value=0, max_value=40_000), max_size=12))
async def test_last_bytes_and_count(sizes: list[int]) -> None:
    """However a body is cut into pieces, its last 16 KiB and its length are known."""
    tail = Tail()
    body = b""
    for number, size in enumerate(sizes):
        piece = bytes([number]) * size
        body += piece
        tail.add(piece)
    assert tail.last() == body[-KEPT:]
    assert tail.total == len(body)
    assert (tail.first is None) == (not body)


async def test_memory_stays_small() -> None:
    """A long stream of small events keeps a bounded number of bytes."""
    tail = Tail()
    for _ in range(10_000):
        tail.add(b"data: something\n\n")
    assert tail.held < 3 * KEPT
    assert tail.total == 10_000 * len(b"data: something\n\n")
    assert sum(map(len, tail.pieces)) == tail.held


async def test_opening_is_the_first_piece() -> None:
    """What came first is kept, without keeping a long first piece whole."""
    tail = Tail()
    for piece in (b"", b"first" + b"x" * KEPT, b"second"):
        tail.add(piece)
    assert tail.opening == (b"first" + b"x" * KEPT)[:KEPT]
