"""How fast requests were, as a distribution: bins for a chart, and the three percentiles that people ask for.

The shape and the rules are those of llama-swap's `/api/metrics/stats`: Sturges' number of bins between 5 and 20, all
equally wide; percentiles are interpolated between the two nearest values; values that are all equal make one bin of
width 0. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

FEWEST_BINS, MOST_BINS = 5, 20


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts per bin from `min` to `max`, each bin `binSize` wide."""

    bins: list[int]
    min: float
    max: float
    bin_size: float = msgspec.field(name="binSize")
    p50: float
    p95: float
    p99: float


def histogram(values: Sequence[float]) -> Histogram | None:
    """The distribution of ascending, finite values; None if there are none."""
    if not values:
        return None
    least, most = values[0], values[-1]
    if least == most:
        bins, width = [len(values)], 0.0
    else:
        number = min(MOST_BINS, max(FEWEST_BINS, math.ceil(math.log2(len(values))) + 1))
        width = (most - least) / number
        bins = counted(values, least=least, width=width, number=number)
    return Histogram(
        bins=bins,
        min=least,
        max=most,
        bin_size=width,
        p50=percentile(values, 50),
        p95=percentile(values, 95),
        p99=percentile(values, 99),
    )


def counted(values: Sequence[float], *, least: float, width: float, number: int) -> list[int]:
    """How many values fall into each bin; the largest value belongs to the last one."""
    if not width:  # the values differ by less than a float can divide
        return [len(values), *[0] * (number - 1)]
    bins = [0] * number
    for value in values:
        bins[min(int((value - least) / width), number - 1)] += 1
    return bins


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of a hundred lie, between the two values that are nearest to it."""
    rank = percent / 100 * (len(values) - 1)
    lower, upper = math.floor(rank), math.ceil(rank)
    return values[lower] + (rank - lower) * (values[upper] - values[lower])
