"""Selectors: a name that stands for several models, one of which takes each request (llama-swap's `selectors`).

`pin`        always the first target.
`warm`       the first that is ready; else the first that is starting; else the first, which then has to be started.
`spillover`  the least busy of those that run, as long as it has fewer than `spillover` requests; else the next that
             does not run is started; else the least busy. Equally busy ones take turns. Stopping ones are passed over.

A target elsewhere (a peer's model) counts as running while it has requests of ours: more is not known of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from bioproxy.config.dialect.schema import Selector
from bioproxy.models.state import State


class Candidate(msgspec.Struct, frozen=True):
    """A target now: `state` is None for one elsewhere; `busy` counts requests that came through this selector."""

    name: str
    state: State | None
    busy: int = 0

    @property
    def active(self) -> bool:
        """Whether it takes requests without a start."""
        return self.busy > 0 or self.state in (State.READY, State.STARTING)


View = Callable[[str], Candidate]


def choose(selector: Selector, view: View, *, turn: int = 0) -> str | None:
    """The target that takes the next request; `turn` counts this selector's requests. None: all are stopping."""
    candidates = [view(target) for target in selector.targets]
    if selector.strategy == "pin":
        return candidates[0].name
    if selector.strategy == "warm":
        return warm(candidates)
    return spill(candidates, most=selector.settings.spillover, turn=turn)


def warm(candidates: Sequence[Candidate]) -> str:
    """The first that is ready, else starting, else the first."""
    for state in (State.READY, State.STARTING):
        for candidate in candidates:
            if candidate.state is state:
                return candidate.name
    return candidates[0].name


def spill(candidates: Sequence[Candidate], *, most: int, turn: int) -> str | None:
    """The least busy that runs, or one more is started if each has `most` requests already."""
    usable = [candidate for candidate in candidates if candidate.state is not State.STOPPING]
    active = [candidate for candidate in usable if candidate.active]
    cold = [candidate for candidate in usable if not candidate.active]
    least = min((candidate.busy for candidate in active), default=most)
    if least >= most and cold:
        return cold[0].name
    equal = [candidate for candidate in active if candidate.busy == least]
    return equal[turn % len(equal)].name if equal else None
