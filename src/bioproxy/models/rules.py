"""What a rule is that decides which engines may run together, and what follows from any such rule.

There are two, `groups.Groups` and `matrix.Matrix`, and exactly one is used. Both answer a single question, so that the
schedule need not know which it has. `seconds` is what each running model would cost to bring back (costs.py): a rule
that has a choice lets the cheapest go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

UNKNOWN: Mapping[str, float] = MappingProxyType({})  # nothing was measured


class Rules(Protocol):
    """Which of the `running` models must stop so that `model` may run beside the rest."""

    name: str  # "group" or "matrix": stands in messages that scripts match on

    def evict(self, model: str, running: Collection[str], seconds: Mapping[str, float] = UNKNOWN) -> frozenset[str]:
        """The models to stop, a subset of `running`; empty where `model` runs already."""
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
