"""The last lines of an engine, whatever it writes and however it is cut into pieces."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.log_tail import LogTail


def fed(*pieces: bytes, lines: int = 3, longest: int = 8) -> LogTail:
    """A small tail that was fed `pieces`."""
    tail = LogTail(lines=lines, longest=longest)
    for piece in pieces:
        tail.feed(piece)
    return tail


@given(
    text=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"0123456789"]), max_size=40).map(b"".join),
    cuts=st.lists(st.integers(min_value=0, max_value=100), max_size=8),
)
def test_pieces_make_no_difference(text: bytes, cuts: list[int]) -> None:
    """However the pipe cuts it: the last lines, each cut at its limit, and the open one behind them."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    tail = fed(*(text[start:end] for start, end in itertools.pairwise(places)))
    *complete, unfinished = text.decode().split("\n")
    expected = [line[:8] for line in complete[-3:]] + ([unfinished[:8]] if unfinished else [])
    assert tail.lines() == tuple(expected)
    assert tail.bytes_in == len(text)


def test_an_open_line_shows_before_it_ends() -> None:
    """An engine may die in the middle of a line."""
    assert fed(b"one\ntw").lines() == ("one", "tw")


def test_a_progress_line_shows_its_last_state() -> None:
    """What a carriage return overwrote is not shown again."""
    assert fed(b"10%\r20%\r99%\r\n").lines() == ("99%",)


def test_nothing_in_it_acts_on_a_terminal() -> None:
    """Escape sequences and bytes that are no text become marks."""
    assert fed(b"\x1b[2J\xff\x00\tx\n").lines() == ("\ufffd[2J\ufffd\ufffd\tx",)


def test_the_last_line_that_says_anything() -> None:
    """Blank lines at the end say nothing."""
    assert fed(b"why\n  \n\n").last() == "why"
    assert fed().last() == ""
