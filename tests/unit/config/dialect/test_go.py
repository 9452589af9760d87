"""Scalars look as Go prints them, and durations are Go's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.go import read_duration, write_duration, write_scalar


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1000000.0, "1e+06"), (0.7, "0.7"), (1e20, "1e+20"), (123456789.0, "1.23456789e+08"), (0.00001, "1e-05"),
        (0.0001, "0.0001"), (100.0, "100"), (2.5e-7, "2.5e-07"), (1e5, "100000"), (0.0, "0"), (-1.5, "-1.5"),
        (-2e9, "-2e+09"), (5, "5"), (True, "true"), (False, "false"), (None, ""), ("x", "x"),
    ],
)  # fmt: skip
def test_scalars_in_texts(value: float | str | None, text: str) -> None:
    """Go printed each of these numbers so."""
    assert write_scalar(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_lose_nothing(value: float) -> None:
    """What is written is the same number."""
    assert float(write_scalar(value)) == value


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("5s", 5, "5s"), ("1m30s", 90, "1m30s"), ("90s", 90, "1m30s"), ("4.9s", 4.9, "4.9s"), ("1.5h", 5400, "1h30m0s"),
        ("500ms", 0.5, "500ms"), ("100us", 1e-4, "100µs"), ("7ns", 7e-9, "7ns"), ("0", 0, "0s"), ("-3s", -3, "-3s"),
        ("1h2m3.5s", 3723.5, "1h2m3.5s"), (".5s", 0.5, "500ms"),
    ],
)  # fmt: skip
def test_durations(text: str, seconds: float, written: str) -> None:
    """Read and written as Go does."""
    assert read_duration(text) == pytest.approx(seconds)
    assert write_duration(read_duration(text)) == written


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5d", "1m 30s", "soon", "5S"])
def test_what_is_no_duration(text: str) -> None:
    """A number needs a unit."""
    with pytest.raises(ValueError, match="expected a duration such as 5s"):
        read_duration(text)
