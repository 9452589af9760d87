"""The last lines of an engine, whatever it writes and however it is cut into pieces."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.output import LogTail


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


@given(
    text=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"ab", b"c"]), max_size=30).map(b"".join),
    cuts=st.lists(st.integers(min_value=0, max_value=60), max_size=6),
)
def test_pieces_make_no_difference_to_lines_that_overwrite_themselves(text: bytes, cuts: list[int]) -> None:
    """A progress line shows the same state however it came."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]
    assert fed(*pieces, lines=50, longest=100).lines() == fed(text, lines=50, longest=100).lines()


def test_a_long_line_among_short_ones_is_cut() -> None:
    """In one piece with others, and behind the beginning that was kept of it."""
    assert fed(b"01", b"23456789\nab\n0123456789\n").lines() == ("01234567", "ab", "01234567")
