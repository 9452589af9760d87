"""What it costs to stop an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.models.costs import GUESS, HALF_LIFE, Figures, bring_back, likelihood, seconds_back


@pytest.mark.parametrize(
    ("figures", "seconds"),
    [
        (Figures(), GUESS),
        (Figures(start=4.0), 4.0),
        (Figures(start=4.0, tokens=10_000, prefill=0.001), 14.0),
        (Figures(start=4.0, tokens=10_000, prefill=0.001, restore=0.5), 4.5),
        (Figures(start=4.0, tokens=100, prefill=0.001, restore=0.5), 4.1),
    ],
)
def test_seconds_until_it_is_back(figures: Figures, seconds: float) -> None:
    """The measured start, and the cache: from disk or evaluated, whichever is sooner."""
    assert seconds_back(figures) == pytest.approx(seconds)


def test_who_is_waited_for_is_needed_for_certain() -> None:
    """Each waiting request counts as one more need."""
    assert likelihood(Figures(waiting=2, idle=1e9)) == pytest.approx(2.0)


def test_use_fades() -> None:
    """After ten minutes without a request it is half as likely to be wanted."""
    assert likelihood(Figures(idle=HALF_LIFE)) == pytest.approx(0.5)


def test_a_quick_start_goes_before_an_older_slow_one() -> None:
    """Two seconds used just now are less than a minute used some time ago."""
    assert bring_back(Figures(start=2.0)) < bring_back(Figures(start=60.0, idle=2 * HALF_LIFE))


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e3))
def test_with_equal_starts_the_least_recently_used_goes(older: float, newer: float, start: float) -> None:
    """LRU is what is left when nothing else differs."""
    older, newer = max(older, newer), min(older, newer)
    assert bring_back(Figures(start=start, idle=older)) <= bring_back(Figures(start=start, idle=newer))
