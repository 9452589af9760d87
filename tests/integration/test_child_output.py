"""What a child writes, on its way to the tail and to the logs: floods, no newline, no text, and its last words."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest

from bioproxy.engines import child
from bioproxy.engines.child import PIPE, Output
from bioproxy.engines.output import LogTail
from bioproxy.engines.process import Process
from bioproxy.logbook import CAPACITY, Logbook
from support.unit_rig import Beacons, beacons

MIB = 1 << 20


class Heard:
    """A sink that tells a test when something came."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()

    def __call__(self, data: bytes) -> None:
        """Take a piece."""
        self.pieces.put_nowait(data)


@pytest.fixture
async def watched() -> AsyncIterator[Beacons]:
    """What hears of the programs' lives and deaths."""
    async with beacons() as found:
        yield found


@pytest.fixture
def never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause after a piece lasts for ever."""
    monkeypatch.setattr(child, "PAUSE", 3600.0)


@pytest.fixture
def writer() -> Iterator[Callable[[int], int]]:
    """Turns a pipe's writing end over to the test, which closes it at the end."""
    kept: list[int] = []

    def keep(descriptor: int) -> int:
        kept.append(descriptor)
        return descriptor

    yield keep
    for descriptor in kept:
        os.close(descriptor)


async def run(program: str, sink: Callable[[bytes], None]) -> Process:
    """A program run to its end."""
    process = Process([sys.executable, "-I", "-S", "-c", program], name="engine", output=sink)
    await process.start()
    await process.wait()
    return process


async def test_output_reaches_the_logs_as_it_is() -> None:
    """Terminal codes and bytes that are no text pass raw; only the tail, which stands in errors, is printable."""
    book = Logbook()
    program = r"import os; os.write(1, b'\x1b[31mred\xff\x00\n'); os.write(2, b'two\r')"
    process = await run(program, book.model("qwen"))
    assert book.models["qwen"].history() == b"\x1b[31mred\xff\x00\ntwo\r"
    assert process.tail.lines() == ("\ufffd[31mred\ufffd\ufffd", "two")


@pytest.mark.parametrize("text", [r"b'x' * 99 + b'\n'", "b'x'", r"bytes(range(256)).replace(b'\n', b'')"])
async def test_a_flood_costs_no_memory_and_blocks_nothing(text: str) -> None:
    """32 MiB of lines, of no line at all, of every byte there is: logs and tail are bounded, and so is each turn."""
    book = Logbook(to_stdout="upstream")
    relay, longest = book.model("qwen"), [0]

    def sink(data: bytes) -> None:
        longest[0] = max(longest[0], len(data))
        relay(data)

    program = f"import os\ntext = {text}\nblock = (text * {MIB})[:{MIB}]\nfor _ in range(32): os.write(1, block)"
    with book.upstream.subscribe() as sleeper:
        process = await run(program, sink)
        assert len(sleeper.backlog.waiting) == sleeper.backlog.limit
    for ring in (book.models["qwen"], book.upstream, book.mux):
        assert ring.bytes_in == 32 * MIB
        assert len(ring.history()) == CAPACITY
    assert process.tail.bytes_in == 32 * MIB
    assert len(process.tail.kept) <= 200
    assert all(len(kept) <= process.tail.longest for kept in (*process.tail.kept, process.tail.open))
    assert longest[0] <= PIPE


async def test_a_child_that_closes_its_output_is_heard_to_the_end_of_it(watched: Beacons) -> None:
    """What it wrote before is there, and it runs on."""
    heard = Heard()
    program = 'os.write(1, b"bye"); os.close(1); os.close(2); held = beacon("engine"); for_ever()'
    process = Process(watched.command(program), name="engine", output=heard)
    await process.start()
    assert await heard.pieces.get() == b"bye"
    await watched.arrived("engine")
    assert process.state == "running"
    await process.stop()
    assert heard.pieces.empty()


async def test_last_words_are_never_lost(watched: Beacons, never_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is told of the end has the whole output, though nobody had a turn to read it and no time-out is left."""
    monkeypatch.setattr(child, "LAST_WORDS", 0.0)
    heard = Heard()
    program = 'print("first", flush=True); held = beacon("engine"); signal.sigwait([signal.SIGTERM]); print("last")'
    blocked = f"signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); {program}"
    process = Process(watched.command(blocked), name="engine", output=heard)
    await process.start()
    await watched.arrived("engine")
    assert await heard.pieces.get() == b"first\n"
    ended = await process.stop()
    assert ended is not None
    assert process.said() == ("first", "last")
    assert heard.pieces.get_nowait() == b"last\n"


async def test_what_comes_in_a_pause_comes_in_one_piece(never_again: None, writer: Callable[[int], int]) -> None:
    """The first line is heard at once; those that follow gather, so that many lines cost as few turns as one."""
    reader, end = os.pipe()
    writer(end)
    heard = Heard()
    output = Output(reader, tail=LogTail(), sink=heard)
    os.write(end, b"one\n")
    assert await heard.pieces.get() == b"one\n"
    os.write(end, b"two\n")
    os.write(end, b"three\n")
    await asyncio.sleep(0)
    assert heard.pieces.empty()
    output.listen()
    assert await heard.pieces.get() == b"two\nthree\n"
    output.close()


async def test_reading_to_the_end_has_an_end(never_again: None) -> None:
    """A process that got away and writes on and on does not keep us reading."""
    reader, end = os.pipe()
    output = Output(reader, tail=LogTail())

    def write_on() -> None:
        with suppress(BrokenPipeError):
            while True:
                os.write(end, b"x" * 4096)
        os.close(end)

    thread = threading.Thread(target=write_on)
    thread.start()
    output.drain()
    assert output.tail.bytes_in <= 2 * PIPE
    output.close()
    await asyncio.to_thread(thread.join)


async def test_closing_twice_is_closing_once(writer: Callable[[int], int]) -> None:
    """The number of the descriptor may be somebody else's by then."""
    reader, end = os.pipe()
    writer(end)
    output = Output(reader, tail=LogTail())
    output.close()
    taken = os.dup(end)
    assert taken == reader
    output.close()
    output.drain()
    os.close(taken)


async def test_a_sink_that_fails_is_not_the_childs_fault(caplog: pytest.LogCaptureFixture) -> None:
    """It hears no more; the tail does, and the child runs to its own end."""

    def fail(_: bytes) -> None:
        raise RuntimeError("a bug elsewhere")

    process = await run("import os; [os.write(1, b'line\\n') for _ in range(3)]", fail)
    assert process.tail.lines() == ("line", "line", "line")
    assert [record.message for record in caplog.records if record.exc_info] == [
        "what hears an engine's output failed and hears no more of it"
    ]
