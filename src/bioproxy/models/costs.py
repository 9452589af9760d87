"""What stopping an engine would cost those who use it: seconds to bring it back, times how likely that is.

Where a rule leaves a choice (two combinations of a matrix, a group with room for several), the cheapest goes.

*Seconds*: how long its start took when it was last measured, plus what it takes to have its cache again: restored from
disk if that is where it is, else evaluated anew. Both are known from this machine, not from a table.

*Likelihood*: each request that waits will certainly need it. Otherwise recent use is the best guess there is: it halves
for every ten minutes without a request. So with equal starts the least recently used goes,
and a small model that is back in a second goes before a large one that was used a little earlier.
"""

from __future__ import annotations

import math

from bioproxy.station import Price

HALF_LIFE = 600.0  # seconds without a request after which a model is half as likely to be wanted
GUESS = 10.0  # seconds that a start takes, where none was measured
PREFILL = 0.002  # seconds per token, where none was measured


def seconds_back(price: Price, start: float | None) -> float:
    """Seconds until a model would be where it is now; `start`: how long its last start took, None if not measured."""
    anew = price.tokens * (PREFILL if price.prefill is None else price.prefill)
    cache = anew if price.restore is None else min(anew, price.restore)
    return cache + (GUESS if start is None else start)


def likelihood(*, waiting: int, idle: float) -> float:
    """How often it will be needed again: 1 per waiting request, and up to 1 for recent use (`idle` seconds ago)."""
    return waiting + math.pow(0.5, max(0.0, idle) / HALF_LIFE)
