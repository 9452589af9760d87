"""Groups: which engines may run together, said by sorting the models into boxes (llama-swap's `groups`).

For each running model R when M is to be loaded:

1. R in M's own group: stopped if the group swaps (`swap: true`), else it stays.
2. R in another group: stopped if M's group is `exclusive` and R's is not `persistent`, else it stays.

So what counts is whether the one who *comes* is exclusive; the one who is there has no say but `persistent`. Models in
no group share the group `(default)`: swap, exclusive, not persistent: one at a time.

`limit` is ours: a group that swaps may keep that many members loaded (llama.cpp's router calls it `--models-max`).
Then there is a choice, and whoever is cheapest to bring back goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from bioproxy.models.rules import UNKNOWN

DEFAULT = "(default)"


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """One group as configured; `limit` is how many members a group that swaps keeps loaded."""

    id: str
    members: tuple[str, ...] = ()
    swap: bool = True
    exclusive: bool = True
    persistent: bool = False
    limit: int = 1


class Groups:
    """The rule `group`; whether the members exist, each in one group, was checked with the configuration."""

    name = "group"

    def __init__(self, groups: Iterable[Group]) -> None:
        self.default = Group(id=DEFAULT)
        self.by_model = {member: group for group in groups for member in group.members}

    def group(self, model: str) -> Group:
        """The group that `model` belongs to."""
        return self.by_model.get(model, self.default)

    def evict(self, model: str, running: Collection[str], seconds: Mapping[str, float] = UNKNOWN) -> frozenset[str]:
        """The running models that must stop so that `model` may run; none if it runs already."""
        if model in running:
            return frozenset()
        mine = self.group(model)
        mates = [other for other in running if self.group(other) is mine]
        gone = self.too_many(mates, mine, seconds) if mine.swap else []
        if mine.exclusive:
            gone += [other for other in running if (group := self.group(other)) is not mine and not group.persistent]
        return frozenset(gone)

    def too_many(self, mates: list[str], group: Group, seconds: Mapping[str, float]) -> list[str]:
        """The members to stop so that one more has room, cheapest to bring back first."""
        excess = len(mates) - (max(1, group.limit) - 1)
        cheapest = sorted(mates, key=lambda name: (seconds.get(name, 0.0), name))
        return cheapest[: max(0, excess)]
