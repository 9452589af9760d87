"""The table of targets: which prompt prefixes are wanted, and the state of each.

A target is known by its prefix and its head. `refresh` makes the table anew from the templates' current texts and the
heads that count, and keeps what is known of those that did not change. A head that falls out of the newest few is
*parked* with its state: when its clients come back, nothing is evaluated again only because they were away.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from bioproxy.kv.resident import Want
from bioproxy.prompt import Head
from bioproxy.warmup import plan
from bioproxy.warmup.heads import Heads, name_of
from bioproxy.warmup.needs import Catalogue


class TargetStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt prefix: `state` is one word, `text` the same with figures; counts are tokens."""

    prefix: str
    head: str
    version: str
    state: plan.Phase
    text: str
    done: int
    total: int
    evaluated: int
    seconds: float
    failures: int


class Table:
    """The targets of one engine."""

    def __init__(self, catalogue: Catalogue, heads: Heads) -> None:
        self.catalogue = catalogue
        self.heads = heads
        self.targets: dict[plan.Key, plan.Target] = {}
        self.parked: dict[plan.Key, plan.Target] = {}
        self.head_of: dict[plan.Key, Head] = {}
        self.wants: dict[plan.Key, Want] = {}
        self.evaluated: dict[plan.Key, tuple[Want, tuple[int, ...]]] = {}  # what the engine had of each at last

    def refresh(self) -> None:
        """Every prefix, with each head that counts; what did not change keeps its state."""
        prefixes, known = self.catalogue.prefixes, self.parked | self.targets
        self.head_of = {(prefix, name_of(head)): head for prefix in prefixes for head in self.heads.top(prefix)}
        versions = {prefix: self.catalogue.current(prefix).version for prefix in prefixes}
        self.targets = plan.merge(known, [(prefix, head, versions[prefix]) for prefix, head in self.head_of])
        left = (target for key, target in known.items() if key not in self.targets)
        self.parked = {target.key: target for target in left if target.version == versions.get(target.prefix)}
        for memory in (self.wants, self.evaluated):
            for key in [key for key in memory if key not in self.targets and key not in self.parked]:
                del memory[key]

    def forget(self) -> None:
        """Another engine: nothing is known of any target."""
        self.targets = plan.forgotten(self.targets)
        self.parked.clear()
        self.wants.clear()
        self.evaluated.clear()

    def put(self, target: plan.Target) -> None:
        """Note a target's new state, unless it is not wanted any more."""
        if self.wanted(target):
            self.targets[target.key] = target

    def wanted(self, target: plan.Target) -> bool:
        """Whether `target` is still in the table, with the text it had."""
        known = self.targets.get(target.key)
        return known is not None and known.version == target.version

    def again(self, which: Callable[[plan.Target], bool]) -> None:
        """Look at these targets again."""
        for target in [target for target in self.targets.values() if which(target)]:
            self.targets[target.key] = replace(target, phase="waiting")

    def ask(self, prefix: str) -> None:
        """Somebody wants `prefix` warm now: its targets go first, and what failed is tried at once."""
        for target in self.of(prefix):
            phase: plan.Phase = "warming" if target.phase == "warming" else "waiting"
            self.targets[target.key] = replace(target, phase=phase, asked=True, failures=0, deaths=0, reason="")

    def of(self, prefix: str) -> list[plan.Target]:
        """The targets of one prefix."""
        return [target for target in self.targets.values() if target.prefix == prefix]

    def statistics(self, *, enabled: bool, prefix: str | None = None) -> tuple[TargetStatistics, ...]:
        """Every target (of one prefix) as others see it; with warm-up not `enabled`, what waits is `off`."""
        targets = self.targets.values() if prefix is None else self.of(prefix)
        return tuple(describe(target, enabled=enabled) for target in targets)


def describe(target: plan.Target, *, enabled: bool) -> TargetStatistics:
    """One target as others see it."""
    off = not enabled and not target.asked and target.phase == "waiting"
    shown = replace(target, phase="off") if off else target
    return TargetStatistics(
        prefix=shown.prefix,
        head=shown.head,
        version=shown.version,
        state=shown.phase,
        text=plan.describe(shown),
        done=shown.done,
        total=shown.total,
        evaluated=shown.evaluated,
        seconds=shown.seconds,
        failures=shown.failures,
    )
