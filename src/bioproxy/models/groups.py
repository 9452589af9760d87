"""Groups: which engines may run together, said by sorting the models into boxes (llama-swap's `groups`).

For each running model R when M is to be loaded:

1. R in M's own group: stopped if the group swaps (`swap: true`), else it stays.
2. R in another group: stopped if M's group is `exclusive` and R's is not `persistent`, else it stays.

So what counts is whether the one who *comes* is exclusive; the one who is there has no say but `persistent`. Models in
no group share the group `(default)`: swap, exclusive, not persistent: one at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bioproxy.config.dialect.schema import Group
from bioproxy.models.rules import UNKNOWN

DEFAULT = "(default)"


class Groups:
    """The rule `group`; whether the members exist, each in one group, was checked with the configuration."""

    name = "group"

    def __init__(self, groups: Mapping[str, Group]) -> None:
        self.groups = {**groups, DEFAULT: Group()}
        self.by_model = {member: name for name, group in groups.items() for member in group.members}

    def evict(self, model: str, running: Collection[str], seconds: Mapping[str, float] = UNKNOWN) -> frozenset[str]:
        """The running models that must stop so that `model` may run; none if it runs already. There is no choice."""
        del seconds
        if model in running:
            return frozenset()
        name = self.by_model.get(model, DEFAULT)
        mine, others = self.groups[name], {other: self.by_model.get(other, DEFAULT) for other in running}
        gone = {other for other, group in others.items() if group == name and mine.swap}
        if mine.exclusive:
            gone |= {other for other, group in others.items() if group != name and not self.groups[group].persistent}
        return frozenset(gone)
