"""Distributions of speeds, as llama-swap draws them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.admin.histogram import Histogram, histogram, percentile


def test_nothing_has_no_distribution() -> None:
    """The page shows a gap."""
    assert histogram([]) is None


def test_equal_values_make_one_bin_of_no_width() -> None:
    """Whatever their number."""
    found = histogram([2.0, 2.0, 2.0])
    assert found == Histogram(bins=[3], min=2.0, max=2.0, bin_size=0.0, p50=2.0, p95=2.0, p99=2.0)


def test_few_values_make_five_bins() -> None:
    """The largest belongs to the last one."""
    found = histogram([0.0, 1.0, 2.0, 10.0])
    assert found is not None
    assert (found.bins, found.bin_size) == ([2, 1, 0, 0, 1], 2.0)


def test_a_thousand_values_make_eleven_bins() -> None:
    """Sturges' rule; and never more than twenty."""
    found, many = histogram([float(n) for n in range(1000)]), histogram([float(n) for n in range(1 << 20)])
    assert found is not None
    assert many is not None
    assert len(found.bins) == 11
    assert len(many.bins) == 20


def test_percentiles_lie_between_the_two_nearest_values() -> None:
    """Interpolated in a straight line."""
    assert percentile([10.0, 20.0], 50) == 15.0
    assert percentile([0.0, 1.0, 2.0, 3.0, 4.0], 95) == 3.8


@given(st.lists(st.floats(min_value=5e-324, max_value=1e300), min_size=1).map(sorted))
def test_every_value_is_in_one_bin_and_percentiles_are_in_order(values: list[float]) -> None:
    """However close or far apart the values are."""
    found = histogram(values)
    assert found is not None
    assert sum(found.bins) == len(values)
    assert found.min <= found.p50 <= found.p95 * (1 + 1e-9)
    assert found.p99 <= found.max * (1 + 1e-9)
