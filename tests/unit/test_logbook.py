"""All logs together: which line goes where, and a standard error that may be read, slow, or gone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bioproxy.logbook import Console, Destination, Logbook


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's reading and writing end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize(
    ("to_stdout", "combined"),
    [
        ("proxy", b"[INFO] ours\n"),
        ("upstream", b"theirs\n"),
        ("both", b"[INFO] ours\ntheirs\n"),
        ("none", b""),
    ],
)
def test_what_the_combined_log_holds(to_stdout: Destination, combined: bytes, pipe: tuple[int, int]) -> None:
    """It is what logToStdout routes, and so is our standard error; the other logs hold theirs in any case."""
    book = Logbook(to_stdout=to_stdout, console=Console(pipe[1]))
    book.proxy_line("[INFO] ours")
    book.model("qwen")(b"theirs\n")
    book.close()
    assert book.mux.history() == combined
    assert (book.proxy.history(), book.upstream.history()) == (b"[INFO] ours\n", b"theirs\n")
    os.set_blocking(pipe[0], False)
    assert (os.read(pipe[0], 100) if combined else b"") == combined


def test_another_route_holds_from_then_on() -> None:
    """What stands in the combined log stays there."""
    book = Logbook(to_stdout="proxy")
    book.proxy_line("one")
    book.route("none")
    book.proxy_line("two")
    assert book.mux.history() == b"one\n"
    assert book.proxy.history() == b"one\ntwo\n"


def test_each_model_has_a_log_of_its_own() -> None:
    """Beside the one that holds what all engines write, in the order in which it came."""
    book = Logbook()
    one, two = book.model("org/one"), book.model("two")
    one(b"1\n")
    two(b"2\n")
    book.model("org/one")(b"3\n")
    assert book.models["org/one"].history() == b"1\n3\n"
    assert book.models["two"].history() == b"2\n"
    assert book.upstream.history() == b"1\n2\n3\n"


def test_logs_are_found_by_name() -> None:
    """A model that was never started has an empty one; what nobody declared has none."""
    book = Logbook()
    book.model("qwen")
    assert book.source("") is book.mux
    assert book.source("proxy") is book.proxy
    assert book.source("upstream") is book.upstream
    assert book.source("qwen") is book.models["qwen"]
    assert book.source("other") is None


async def test_a_forgotten_models_log_ends() -> None:
    """Who follows it sees its end; forgetting twice is nothing."""
    book = Logbook()
    book.model("qwen")(b"line\n")
    reader = book.models["qwen"].subscribe(history=True)
    book.forget("qwen")
    book.forget("qwen")
    assert [piece async for piece in reader] == [b"line\n"]
    assert book.source("qwen") is None


def test_bytes_pass_as_they_are_and_odd_text_is_escaped() -> None:
    """Terminal codes and halves of characters of an engine are its own; a line of ours is always UTF-8."""
    book = Logbook()
    book.model("qwen")(b"\x1b[31m\xff\x00")
    book.proxy_line("file \udcff, ü")
    assert book.upstream.history() == b"\x1b[31m\xff\x00"
    assert book.proxy.history().decode() == "file \\udcff, ü\n"


def test_a_reader_that_sleeps_holds_up_nobody(pipe: tuple[int, int]) -> None:
    """Standard output is a full pipe: writes return, memory is bounded, and a line says what is missing."""
    console = Console(pipe[1], limit=1000)
    book = Logbook(to_stdout="upstream", console=console)
    sink = book.model("qwen")
    for _ in range(10_000):
        sink(b"x" * 99 + b"\n")
    seen = console.statistics()
    assert seen.waiting <= 1000
    assert seen.dropped > 500_000
    assert read_until(pipe[0], "— ", "bytes dropped —\n").count("x") <= 1_000_000 - seen.dropped
    book.close()


def test_a_closed_standard_output_is_noticed_once() -> None:
    """Nobody can read it: nothing is kept for it, and statistics say why."""
    reader, writer = os.pipe()
    os.close(reader)
    console = Console(writer)
    console.write(b"lost")
    assert console.thread is not None
    console.thread.join()
    console.write(b"lost too")
    assert console.statistics().fault == "standard error cannot be written: Broken pipe"
    assert console.statistics().dropped == 12
    assert console.statistics().waiting == 0
    os.close(writer)


def test_a_non_blocking_standard_output_gets_everything(pipe: tuple[int, int]) -> None:
    """A program that shares the terminal may have made it so."""
    os.set_blocking(pipe[1], False)
    console = Console(pipe[1])
    console.write(b"x" * 300_000 + b"end\n")
    assert len(read_until(pipe[0], "end\n")) == 300_004
    console.close()
    assert console.statistics().written == 300_004


def test_what_is_written_after_the_end_is_lost(pipe: tuple[int, int]) -> None:
    """And the end does not wait for ever for one who does not read."""
    console = Console(pipe[1])
    console.write(b"x" * 300_000)
    console.close(deadline=0)
    console.write(b"late")
    assert console.statistics().dropped == 4
    assert len(read_until(pipe[0], "x" * 300_000)) == 300_000


def test_statistics_name_every_log() -> None:
    """As one can ask for them, with what they hold."""
    book = Logbook(to_stdout="both", capacity=10)
    book.model("qwen")(b"0123456789ab")
    seen = book.statistics()
    assert list(seen.rings) == ["mux", "proxy", "upstream", "qwen"]
    assert (seen.to_stdout, seen.console) == ("both", None)
    assert (seen.rings["qwen"].held, seen.rings["qwen"].bytes_in, seen.rings["proxy"].held) == (10, 12, 0)


def read_until(descriptor: int, *ends: str) -> str:
    """Read until all of `ends` have come."""
    got = ""
    while not all(end in got for end in ends):
        got += os.read(descriptor, 1 << 16).decode("utf-8", "replace")
    return got
