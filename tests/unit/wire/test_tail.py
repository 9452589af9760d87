"""What a relay remembers of a body."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.wire.coding import unpacker
from bioproxy.wire.relay import BEGINNING, KEPT, Tail


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


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=6),
    st.integers(1, 40_000),
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
async def test_how_the_cut_event_begins(sizes: list[int], step: int, mark: bytes) -> None:
    """Of an event of which only the end is kept, the beginning is known, wherever the stream was cut into pieces."""
    tail = Tail()
    tail.events = True
    events = [b"event: %d\ndata: " % number + b"x" * size + mark for number, size in enumerate(sizes)]
    stream = b"".join(events)
    for at in range(0, len(stream), step):
        tail.add(stream[at : at + step])
    kept = tail.last()
    if tail.forgotten and mark not in kept[: -len(mark)]:
        assert tail.begun == events[-1][:BEGINNING]


async def test_a_compressed_body_is_kept_plain() -> None:
    """The end is readable and the count is of plain bytes; what was collected is as it came."""
    tail = Tail()
    tail.collect(100)
    tail.unpack = unpacker("gzip")
    packed = gzip.compress(b"data: [DONE]\n\n")
    for at in range(len(packed)):
        tail.add(packed[at : at + 1])
    assert (tail.last(), tail.total, tail.whole()) == (b"data: [DONE]\n\n", 14, packed)


async def test_what_is_collected_has_a_bound() -> None:
    """One byte more, and nothing of it is kept."""
    for size, kept in ((100, b"x" * 100), (101, None)):
        tail = Tail()
        tail.collect(100)
        for _ in range(size):
            tail.add(b"x")
        assert tail.whole() == kept
