"""One log: what it keeps, who follows it, and what a reader loses that does not keep up."""

from __future__ import annotations

import asyncio
import threading

from hypothesis import given
from hypothesis import strategies as st

from bioproxy import aio
from bioproxy.logbook import Backlog, Ring, Subscription

PIECES = st.lists(st.binary(max_size=25), max_size=20)


@given(pieces=PIECES, capacity=st.integers(min_value=1, max_value=20))
def test_the_newest_bytes_are_kept(pieces: list[bytes], capacity: int) -> None:
    """Whatever the pieces are, longer than the ring too: the last `capacity` bytes, in order."""
    ring = Ring(capacity)
    for piece in pieces:
        ring.write(piece)
    whole = b"".join(pieces)
    assert ring.history() == whole[-capacity:]
    assert ring.statistics().held == min(len(whole), capacity)
    assert ring.statistics().bytes_in == len(whole)


def test_memory_is_taken_with_the_first_byte() -> None:
    """Two hundred models that never start cost nothing."""
    ring = Ring()
    sizes = [len(ring.kept or b"")]
    assert ring.history() == b""
    ring.write(b"x")
    sizes.append(len(ring.kept or b""))
    assert sizes == [0, 100 << 10]


@given(pieces=PIECES, limit=st.integers(min_value=0, max_value=60))
def test_a_backlog_loses_one_stretch_and_says_how_long(pieces: list[bytes], limit: int) -> None:
    """What is told is a beginning of what came, and the line counts exactly the rest."""
    backlog = Backlog(limit)
    lost = sum(backlog.put(piece) for piece in pieces)
    whole = b"".join(pieces)
    kept = whole[: len(whole) - lost]
    told = backlog.take()
    assert len(kept) == min(len(whole), limit)
    if lost:
        gap = b"" if kept.endswith(b"\n") else b"\n"
        assert told == kept + gap + f"— {lost} bytes dropped —\n".encode()
    else:
        assert told == whole
    assert backlog.take() == b""


async def test_a_reader_gets_what_is_written_from_now_on() -> None:
    """Nothing from before, and pieces that came together in one."""
    ring = Ring()
    ring.write(b"before")
    with ring.subscribe() as reader:
        ring.write(b"one ")
        ring.write(b"two")
        assert await anext(reader) == b"one two"


async def test_a_reader_may_have_the_history_first() -> None:
    """Whole, also where it is more than the reader may be behind, and with no hole behind it."""
    ring = Ring(10)
    ring.write(b"0123456789")
    with ring.subscribe(history=True, limit=4) as reader:
        assert await anext(reader) == b"0123456789"
        ring.write(b"abc")
        assert await anext(reader) == b"abc"


async def test_a_full_reader_that_has_the_history_loses_what_comes() -> None:
    """The history counts as waiting, and the marker stands behind it."""
    ring = Ring(10)
    ring.write(b"0123456789")
    with ring.subscribe(history=True, limit=4) as reader:
        ring.write(b"abc")
        assert (await anext(reader)).decode() == "0123456789\n— 3 bytes dropped —\n"


async def test_a_slow_reader_loses_alone() -> None:
    """Beside it another one gets everything; the ring counts what was lost."""
    ring = Ring()
    with ring.subscribe(limit=6) as slow, ring.subscribe() as quick:
        for line in (b"one\n", b"two\n", b"three\n"):
            ring.write(line)
        assert (await anext(slow)).decode() == "one\ntw\n— 8 bytes dropped —\n"
        assert await anext(quick) == b"one\ntwo\nthree\n"
        ring.write(b"four\n")
        assert await anext(slow) == b"four\n"
    assert ring.statistics().dropped == 8


async def test_a_waiting_reader_wakes_with_the_next_piece() -> None:
    """No polling is between a line and who waits for it."""
    ring = Ring()
    with ring.subscribe() as reader:
        waiting = aio.spawn(following(reader, 1), name="reader")
        await asyncio.sleep(0)
        ring.write(b"line")
        assert await waiting == b"line"


async def test_any_thread_may_write() -> None:
    """Lines are logged by threads that read files; the reader is woken on its loop, and no byte is lost."""
    ring = Ring()

    def write() -> None:
        for _ in range(1000):
            ring.write(b"line\n")

    with ring.subscribe() as reader:
        waiting = aio.spawn(following(reader, 4 * 1000 * 5), name="reader")
        writers = [threading.Thread(target=write) for _ in range(4)]
        for writer in writers:
            writer.start()
        assert await waiting == b"line\n" * 4000
        for writer in writers:
            writer.join()
    assert ring.history() == (b"line\n" * 4000)[-ring.capacity :]


def test_a_reader_whose_loop_is_gone_disturbs_nobody() -> None:
    """A thread that logs while the program ends finds no loop to wake."""
    ring = Ring()

    async def subscribe() -> Subscription:
        return ring.subscribe()

    left = asyncio.run(subscribe())
    writer = threading.Thread(target=ring.write, args=(b"late",))
    writer.start()
    writer.join()
    assert ring.history() == b"late"
    assert left.take() == b"late"


async def test_who_leaves_is_kept_no_longer() -> None:
    """The ring holds no reader that has closed, and writes to it no more."""
    ring = Ring()
    with ring.subscribe() as reader:
        assert ring.statistics().subscribers == 1
    ring.write(b"late")
    assert ring.statistics().subscribers == 0
    assert [piece async for piece in reader] == []


async def test_a_cancelled_reader_leaves_nothing() -> None:
    """A client that goes away cancels whoever waits for it."""
    ring = Ring()

    async def read() -> None:
        with ring.subscribe() as reader:
            await anext(reader)

    task = aio.spawn(read(), name="reader")
    await asyncio.sleep(0)
    assert ring.statistics().subscribers == 1
    await aio.finish([task])
    assert ring.statistics().subscribers == 0


async def test_the_end_of_a_ring_ends_its_readers() -> None:
    """With what they had not read yet, and one that comes later gets the history and the end."""
    ring = Ring()
    with ring.subscribe() as reader:
        ring.write(b"last")
        ring.close()
        assert [piece async for piece in reader] == [b"last"]
        assert [piece async for piece in ring.subscribe(history=True)] == [b"last"]


async def following(reader: Subscription, count: int) -> bytes:
    """Read until `count` bytes have come."""
    got = b""
    async for piece in reader:
        got += piece
        if len(got) >= count:
            break
    return got
