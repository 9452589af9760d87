"""What it costs to stop an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.models.book import ModelSettings, Record
from bioproxy.models.rules import GUESS, HALF_LIFE, likelihood, seconds_back
from bioproxy.station import Price


def cost(start: float, *, idle: float = 0.0) -> float:
    """What stopping a model costs that took `start` seconds to load and was used `idle` seconds ago."""
    record = Record(ModelSettings(id="m"), now=0.0)
    record.load_seconds = start
    return record.cost(idle)


@pytest.mark.parametrize(
    ("price", "start", "seconds"),
    [
        (Price(), None, GUESS),
        (Price(), 4.0, 4.0),
        (Price(10_000, 0.001), 4.0, 14.0),
        (Price(10_000, 0.001, 0.5), 4.0, 4.5),
        (Price(100, 0.001, 0.5), 4.0, 4.1),
    ],
)
def test_seconds_until_it_is_back(price: Price, start: float | None, seconds: float) -> None:
    """The measured start, and the cache: from disk or evaluated, whichever is sooner."""
    assert seconds_back(price, start) == pytest.approx(seconds)


def test_who_is_waited_for_is_needed_for_certain() -> None:
    """Each waiting request counts as one more need."""
    assert likelihood(waiting=2, idle=1e9) == pytest.approx(2.0)


def test_use_fades() -> None:
    """After ten minutes without a request it is half as likely to be wanted."""
    assert likelihood(waiting=0, idle=HALF_LIFE) == pytest.approx(0.5)


def test_a_quick_start_goes_before_an_older_slow_one() -> None:
    """Two seconds used just now are less than a minute used some time ago."""
    assert cost(2.0) < cost(60.0, idle=2 * HALF_LIFE)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_with_equal_starts_the_least_recently_used_goes(older: float, newer: float, start: float) -> None:
    """LRU is what is left when nothing else differs."""
    older, newer = max(older, newer), min(older, newer)
    assert cost(start, idle=older) <= cost(start, idle=newer)
