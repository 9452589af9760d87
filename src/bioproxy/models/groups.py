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

from bioproxy.errors import ConfigError, Problem
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
    """The rule `group`. Raises ConfigError with every member that is wrong; `models` are all model IDs."""

    name = "group"

    def __init__(self, groups: Iterable[Group], models: Iterable[str] = ()) -> None:
        self.default = Group(id=DEFAULT)
        self.by_model: dict[str, Group] = {}
        known = frozenset(models)
        problems: list[Problem] = []
        for group in groups:
            problems += self.add(group, known)
        if problems:
            raise ConfigError(problems)

    def add(self, group: Group, known: frozenset[str]) -> list[Problem]:
        """Take `group` in; the problems with its members, in llama-swap's words."""
        found = []
        for member in group.members:
            other = self.by_model.get(member)
            if other is group:
                found.append(f"duplicate model member {member} found in group: {group.id}")
            elif other is not None:
                found.append(f"model member {member} is used in multiple groups: {other.id} and {group.id}")
            elif known and member not in known:
                found.append(f'no model config for "{member}"')
            self.by_model.setdefault(member, group)
        return [Problem(message, key=f"groups.{group.id}.members") for message in found]

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
