"""Durations and sizes: what is read, what is refused and how, and that writing and reading agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.units import read_bytes, read_seconds, write_bytes, write_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m 5s", 5405.0),
        ("500ms", 0.5),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("45", 45.0),
        (" 0.25 ", 0.25),
        ("1e3", 1000.0),
        ("0", 0.0),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A duration may have several parts; a bare number is seconds."""
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("20GiB", 20 << 30),
        ("500MB", 500_000_000),
        ("1.5 GiB", 3 << 29),
        ("1kib", 1024),
        ("7B", 7),
        ("1048576", 1 << 20),
        ("2TB", 2 * 10**12),
        ("9007199254740993", 9007199254740993),
        ("1e6", 1_000_000),
    ],
)
def test_sizes_are_read(text: str, bytes_: int) -> None:
    """GiB is a power of 1024, GB one of 1000; a bare number is bytes, and no digit is lost."""
    assert read_bytes(text) == bytes_


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5s", "5s!", "1:30", "s", "1h30", "inf", "nan"])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    """The sentence says what a duration looks like."""
    with pytest.raises(ValueError, match="expected a duration such as 500ms, 30s, 10m or 1h30m"):
        read_seconds(text)


@pytest.mark.parametrize("text", ["", "much", "5X", "-5MB", "5 gigs", "1GiB2MiB", "1e400"])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    """The sentence says what a size looks like."""
    with pytest.raises(ValueError, match="expected a size such as 500MB or 20GiB"):
        read_bytes(text)


@pytest.mark.parametrize(("text", "near"), [("10min", "m"), ("3 hours", "h"), ("5sec", "s"), ("5S", "s"), ("1D", "d")])
def test_other_names_of_units_are_recognised(text: str, near: str) -> None:
    """Who writes "10min" is told to write "m"."""
    with pytest.raises(ValueError, match=f'write "{near}" instead of'):
        read_seconds(text)


@pytest.mark.parametrize("letter", ["K", "M", "G", "T", "g"])
def test_a_unit_that_could_be_either_is_not_guessed(letter: str) -> None:
    """20G is 7 % more or less, depending on whom one asks."""
    with pytest.raises(ValueError, match=f'write "{letter.upper()}iB" .powers of 1024. or "{letter.upper()}B"'):
        read_bytes(f"20{letter}")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (30.0, "30s"), (90.0, "1m30s"), (86400.0, "1d"), (0.25, "250ms"), (1.5, "1.5s"), (1e-07, "1e-07")],
)
def test_durations_are_written_short(seconds: float, text: str) -> None:
    """The writing is what people would write."""
    assert write_seconds(seconds) == text


@pytest.mark.parametrize(
    ("bytes_", "text"), [(0, "0"), (1025, "1025"), (5 << 30, "5GiB"), (500_000_000, "500MB"), (1 << 16, "64KiB")]
)
def test_sizes_are_written_short(bytes_: int, text: str) -> None:
    """The largest unit that loses nothing."""
    assert write_bytes(bytes_) == text


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_every_duration_that_is_written_is_read_back(seconds: float) -> None:
    """To the last bit."""
    assert read_seconds(write_seconds(seconds)) == seconds


@given(st.integers(min_value=0, max_value=1 << 70))
def test_every_size_that_is_written_is_read_back(bytes_: int) -> None:
    """To the last byte."""
    assert read_bytes(write_bytes(bytes_)) == bytes_


@given(st.text(max_size=20))
def test_no_text_breaks_the_readers(text: str) -> None:
    """Any text is a number or a ValueError, never another error and never less than nought."""
    for read in (read_seconds, read_bytes):
        try:
            assert read(text) >= 0
        except ValueError as error:
            assert "expected" in str(error)  # noqa: PT017 - both outcomes are right
