"""Conversations whose head changes at each turn: how much of their prompt will ever be found again.

A clock in the system message, a counter, tools in another order: then the whole prompt is another one at each turn, and
a snapshot of the conversation, which may take gigabytes, is used by nobody. What *is* found again is the beginning of
the head, up to the first place that changes.

It is learnt from what comes: a conversation is known by the beginning of its first message, and goes on if it became
longer. If its head was another one at two turns in a row, nothing after the beginning that these heads share is found
again; and so it is for a new conversation that begins in the same way, from its first turn. As soon as a head stays
from one turn to the next, everything counts again.

Digests only, but for heads that changed already, whose text is needed to read their common beginning. Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter

import msgspec

from bioproxy.kv.chain import common
from bioproxy.prompt import Cut, Head, Piece

CHANGES = 2  # in a row, after which the next one is expected
TALKS, BRANCHES = 128, 4  # conversations that are remembered, and heads of each
LEARNT = 256  # beginnings that are remembered
NAMED_BY = 1024  # bytes of a first message that name a conversation
OFFSET, DIGEST = attrgetter("offset"), attrgetter("digest")


class Branch(msgspec.Struct):
    """A conversation with one head: the head's cuts, how many pieces it had last, how often its head had changed.

    `head` is kept once it changed.
    """

    cuts: tuple[Cut, ...]
    length: int
    changes: int = 0
    head: Head | None = None


class Stable(msgspec.Struct, frozen=True):
    """What two heads of a conversation share: up to `cut` (None: nothing) of `size` bytes, with both heads."""

    cut: Cut | None
    size: int
    head: Head
    other: Head


class UnstableStatistics(msgspec.Struct, frozen=True):
    """Of a group's heads that change at each turn: their bytes, and how many of them are the same each time."""

    group: str
    bytes: int
    stable: int


class Unstable:
    """What was learnt, by group. `learnt` has the shared beginning by the first cut of the heads that it is of."""

    def __init__(self) -> None:
        self.talks: dict[tuple[str, int], list[Branch]] = {}
        self.learnt: dict[tuple[str, bytes], Stable] = {}

    def look(self, group: str, cuts: Sequence[Cut], pieces: Sequence[Piece], head: Head) -> Stable | None:
        """What of this request's head will be found again; None: all of its prompt, as far as is known."""
        if len(pieces) < 2:
            return None
        own = tuple(cuts[: bisect_left(cuts, len(pieces[0].data), key=OFFSET) + 1])
        first = pieces[1].data
        key = group, hash((len(first), first[:NAMED_BY]))
        branches = self.talks.pop(key, [])
        self.talks[key] = branches
        if len(self.talks) > TALKS:
            del self.talks[next(iter(self.talks))]
        for branch in branches:
            if branch.cuts[-1].digest == own[-1].digest:
                return self.same(group, branch, len(pieces))
        return self.other(group, branches, own, len(pieces), head)

    def same(self, group: str, branch: Branch, length: int) -> Stable | None:
        """A head that was there before: if the conversation went on with it, it stays."""
        key = group, branch.cuts[0].digest
        if length > branch.length:
            branch.length, branch.changes, branch.head = length, 0, None
            self.learnt.pop(key, None)
        return self.known(key, branch.cuts)

    def other(self, group: str, branches: list[Branch], own: tuple[Cut, ...], length: int, head: Head) -> Stable | None:
        """A head that this conversation did not have: another conversation with the same first words, or a change."""
        digests = frozenset(map(DIGEST, own))
        earlier = [one for one in branches if one.length < length]
        before = max(earlier, key=lambda one: (common(one.cuts, digests), one.length), default=None)
        key = group, own[0].digest
        branch = Branch(own, length)
        if before is not None:
            branch.changes, branch.head = before.changes + 1, head
            if branch.changes >= CHANGES and before.head is not None:
                shared = common(before.cuts, digests)
                self.learnt.pop(key, None)
                self.learnt[key] = Stable(
                    before.cuts[shared - 1] if shared else None, own[-1].offset, head, before.head
                )
                if len(self.learnt) > LEARNT:
                    del self.learnt[next(iter(self.learnt))]
            if before.changes:
                branches.remove(before)
        branches.append(branch)
        del branches[:-BRANCHES]
        return self.known(key, own)

    def statistics(self) -> tuple[UnstableStatistics, ...]:
        """Counts only, of what was learnt last first."""
        return tuple(
            UnstableStatistics(group, one.size, one.cut.offset if one.cut is not None else 0)
            for (group, _), one in reversed(self.learnt.items())
        )

    def known(self, key: tuple[str, bytes], own: Sequence[Cut]) -> Stable | None:
        """What was learnt of heads that begin like this one, if it shares that beginning."""
        found = self.learnt.get(key)
        return found if found is None or found.cut is None or found.cut in own else None
