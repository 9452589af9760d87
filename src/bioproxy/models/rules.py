"""What a rule is that decides which engines may run together, and what follows from any such rule.

There are two, `groups.Groups` and `matrix.Matrix`, and exactly one is used. Both answer a single question, so that the
schedule need not know which it has. A matrix may have a choice (two combinations); then the models go that cost least
to bring back: seconds until it is there again, times how likely that is.

*Seconds*: how long its start took when it was last measured, plus what it takes to have its cache again: restored from
disk if that is where it is, else evaluated anew. Both are known from this machine, not from a table.

*Likelihood*: each request that waits will certainly need it. Otherwise recent use is the best guess there is: it halves
for every ten minutes without a request. So with equal starts the least recently used goes,
and a small model that is back in a second goes before a large one that was used a little earlier.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from bioproxy.station import Price

HALF_LIFE = 600.0  # seconds without a request after which a model is half as likely to be wanted
GUESS = 10.0  # seconds that a start takes, if none was measured
PREFILL = 0.002  # seconds per token, if none were measured
UNKNOWN: Mapping[str, float] = MappingProxyType({})  # nothing was measured


class Rules(Protocol):
    """Which of the `running` models must stop so that `model` may run beside the rest."""

    name: str  # "group" or "matrix": stands in messages that scripts match on

    def evict(self, model: str, running: Collection[str], seconds: Mapping[str, float] = UNKNOWN) -> frozenset[str]:
        """The models to stop, a subset of `running`; empty if `model` runs already."""
        ...


def fitting(models: Iterable[str], rules: Rules) -> tuple[list[str], list[str]]:
    """Split what is to be preloaded into what can be, in order, and what would only push out what came before it.

    llama-swap loads them one after the other, and in a group that swaps each load stops the one before.
    """
    loaded: list[str] = []
    left: list[str] = []
    for model in dict.fromkeys(models):
        (left if rules.evict(model, loaded) else loaded).append(model)
    return loaded, left


def seconds_back(price: Price, start: float | None) -> float:
    """Seconds until a model would be where it is now; `start`: how long its last start took, None if not measured."""
    anew = price.tokens * (PREFILL if price.prefill is None else price.prefill)
    cache = anew if price.restore is None else min(anew, price.restore)
    return cache + (GUESS if start is None else start)


def likelihood(*, waiting: int, idle: float) -> float:
    """How often it will be needed again: 1 per waiting request, and up to 1 for recent use (`idle` seconds ago)."""
    return waiting + math.pow(0.5, max(0.0, idle) / HALF_LIFE)
