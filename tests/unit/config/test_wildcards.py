"""Patterns of `clients`: fixed texts and `*`, compared in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.wildcards import fits, lines, longest_piece, pattern_fault

letters = st.text(alphabet="ab\n*", max_size=12)


@given(pattern=st.text(alphabet="ab*", max_size=10), text=st.text(alphabet="ab", max_size=14))
def test_a_pattern_fits_what_the_expression_fits(pattern: str, text: str) -> None:
    """`*` is any text, also none."""
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert fits(pattern, text) == (re.fullmatch(expression, text) is not None)


@given(text=letters)
def test_lines_are_whole_lines(text: str) -> None:
    """Each once, from the first to the last."""
    found = [text[start:end] for start, end in lines("*ab*", text)]
    assert found == [line for line in text.split("\n") if "ab" in line]


def test_no_pattern_takes_for_ever() -> None:
    """What makes an expression of that form try all ways: as many `*` as there may be, and nearly a match."""
    pattern, text = "*a" * 8 + "*b", "a" * 2_000_000
    assert not fits(pattern, text)
    assert list(lines("*a" * 8 + "*bcd", text)) == []


@pytest.mark.parametrize("pattern", ["x" * 501, "*" * 9, "a*b*c*d*e*f*g*h*i*j"])
def test_a_pattern_has_bounds(pattern: str) -> None:
    """Of length and of `*`."""
    assert "at most" in pattern_fault(pattern)


@pytest.mark.parametrize("pattern", ["*", "", "a*b", "*: *", "two\nlines"])
def test_a_pattern_of_lines_names_some_letters(pattern: str) -> None:
    """Else it would be for all of them, or for none."""
    assert pattern_fault(pattern, line=True)
    assert not pattern_fault("Date: *", line=True)


def test_the_longest_piece_is_in_all_that_fits() -> None:
    """So a text without it need not be looked at."""
    assert longest_piece("ab*abcd*a") == "abcd"
