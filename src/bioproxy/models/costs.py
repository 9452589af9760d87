"""What stopping an engine would cost those who use it: seconds to bring it back, times how likely that is.

Where a rule leaves a choice (two combinations of a matrix, a group with room for several), the cheapest goes.

*Seconds*: how long its start took when it was last measured, plus what it takes to have its cache again: restored from
disk if that is where it is, else evaluated anew. Both are known from this machine, not from a table.

*Likelihood*: who is waited for will be back for certain, once per request that waits. Otherwise recent use is the best
guess there is: it halves for every ten minutes without a request. So with equal starts the least recently used goes,
and a small model that is back in a second goes before a large one that was used a little earlier.
"""

from __future__ import annotations

import math

import msgspec

HALF_LIFE = 600.0  # seconds without a request after which a model is half as likely to be wanted
GUESS = 10.0  # seconds that a start takes, where none was measured
PREFILL = 0.002  # seconds per token, where none was measured


class Price(msgspec.Struct, frozen=True):
    """What a model's cache would cost to have again: `tokens` that it holds, `prefill` seconds per token (None: never
    measured), `restore` seconds to have them back from disk (None: they are not there).
    """  # noqa: D205 - one sentence per field

    tokens: int = 0
    prefill: float | None = None
    restore: float | None = None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one running model.

    `start`: seconds of its last start, None if never measured; `tokens`: what its cache holds; `prefill`: seconds per
    token; `restore`: seconds to have these tokens back from disk, None if they are not there; `waiting`: requests that
    wait for it; `idle`: seconds since it was last used.
    """

    start: float | None = None
    tokens: int = 0
    prefill: float | None = None
    restore: float | None = None
    waiting: int = 0
    idle: float = 0.0


def seconds_back(figures: Figures) -> float:
    """Seconds until the model would be where it is now."""
    start = GUESS if figures.start is None else figures.start
    anew = figures.tokens * (PREFILL if figures.prefill is None else figures.prefill)
    return start + (anew if figures.restore is None else min(anew, figures.restore))


def likelihood(figures: Figures) -> float:
    """How often it will be needed again: 1 per waiting request, and up to 1 for recent use."""
    return figures.waiting + math.pow(0.5, max(0.0, figures.idle) / HALF_LIFE)


def bring_back(figures: Figures) -> float:
    """The expected seconds that stopping it costs; never 0."""
    return seconds_back(figures) * likelihood(figures)
