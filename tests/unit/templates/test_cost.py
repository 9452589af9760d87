"""What a change costs, in one sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.prompt import common
from bioproxy.templates.reading import Change, Source, change_of, duration, sentence


def laid(*files: tuple[str, str]) -> tuple[str, tuple[Source, ...]]:
    """A text made of files, and where each stands."""
    sources, start = [], 0
    for name, text in files:
        sources.append(Source(name, start, len(text.encode())))
        start += len(text.encode())
    return "".join(text for _, text in files), tuple(sources)


def changed(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> Change:
    one, before = laid(*old)
    other, after = laid(*new)
    return change_of(one, other, before=before, after=after)


def test_the_first_byte_that_differs_names_the_file() -> None:
    """Later differences cost nothing more."""
    found = changed([("a", "1111"), ("b", "2222"), ("c", "3333")], [("a", "1111"), ("b", "2x22"), ("c", "4444")])
    assert found == Change("b", "changed", 5, 12)


def test_a_file_that_came_or_went_is_told_as_such() -> None:
    """Not as a change of its neighbour."""
    short, long = [("a", "1111"), ("c", "3333")], [("a", "1111"), ("b", "2222"), ("c", "3333")]
    assert changed(short, long) == Change("b", "was added", 4, 12)
    assert changed(long, short) == Change("b", "was removed", 4, 8)


def test_a_text_that_was_cut_off_changed_at_its_end() -> None:
    """Nothing differs but the length."""
    assert changed([("a", "1111"), ("b", "2222")], [("a", "1111"), ("b", "22")]) == Change("b", "changed", 6, 6)


def test_bytes_count_not_letters() -> None:
    """A letter may be four bytes."""
    assert changed([("a", "äöü1")], [("a", "äöü2")]).at == 6


def test_what_stands_behind_the_message_costs_nothing() -> None:
    """It is evaluated with every request anyway."""
    same, sources = laid(("a", "1111"))
    behind = (*sources, Source("b", 4, 9))
    found = change_of(same, same, before=behind, after=behind)
    assert sentence(found, tokens_per_byte=1.0) == "b changed after the message: nothing before it is evaluated again"


def test_the_sentence_of_the_design() -> None:
    """Share, tokens, time, and the advice where it helps."""
    found = Change("src/app.py", "changed", 18_000, 144_000)
    assert sentence(found, tokens_per_byte=40_000 / 144_000, seconds_per_token=1 / 700) == (
        "src/app.py changed at 12 % of the template: 35,000 of 40,000 tokens again, about 50 s; "
        "further back it would cost less"
    )


def test_without_a_measurement_the_share_is_told() -> None:
    """A change near the end needs no advice."""
    assert sentence(Change("b.md", "was added", 90, 100)) == "b.md was added at 90 % of the template: 10 % of it again"


def test_tokens_may_be_known_before_their_time() -> None:
    """Then no time is told."""
    assert sentence(Change("b", "changed", 90, 100), tokens_per_byte=0.5).endswith("5 of 50 tokens again")


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (3.2, "3 s"), (119.0, "119 s"), (150.0, "2 min")])
def test_durations_are_as_exact_as_estimates_are(seconds: float, text: str) -> None:
    """No more digits than are known."""
    assert duration(seconds) == text


@given(st.binary(), st.binary(), st.binary())
def test_the_common_beginning_is_found(start: bytes, one: bytes, other: bytes) -> None:
    """All of it, and not a byte more."""
    length = common(start + one, start + other)
    assert length >= len(start)
    assert (start + one)[:length] == (start + other)[:length]
    assert (start + one)[length : length + 1] != (start + other)[length : length + 1] or len(one) == len(other) == (
        length - len(start)
    )
