"""Where a prompt that missed the cache first differs from the nearest one that was served.

A cache miss has a cause that no log shows: a date in a system message, a counter that a client adds, tools in another
order. So the texts of the newest conversations stay in memory (never on disk, never of `no-store` requests) and a miss
is compared with the one that shares the longest beginning: "system message differs at byte 79: `fa690` → `9c1`".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from bioproxy.prompt import Piece, common
from bioproxy.templates.dialect_heads import part_of

SHOWN = 40  # characters of either text
BEFORE = 8  # of them before the difference
KEPT = 64
BYTES = 16 << 20


def shared(one: Sequence[Piece], other: Sequence[Piece]) -> tuple[int, int]:
    """(pieces that are equal, equal bytes of the first that is not)."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left.data != right.data:
            return index, common(left.data, right.data)
    return min(len(one), len(other)), 0


def excerpt(data: bytes, at: int) -> str:
    """At most forty characters around byte `at`, cut at whole characters, on one line."""
    text = data[max(0, at - BEFORE) : at + 4 * SHOWN].decode(errors="ignore")
    return text[:SHOWN].replace("\n", "⏎").replace("`", "'")


class Recent:
    """The newest conversations by group, `KEPT` of them and `BYTES` in all."""

    def __init__(self) -> None:
        self.conversations: OrderedDict[tuple[str, bytes], tuple[Piece, ...]] = OrderedDict()
        self.sizes: dict[tuple[str, bytes], int] = {}
        self.bytes = 0

    def add(self, group: str, pieces: tuple[Piece, ...]) -> None:
        """Keep a conversation; a later turn of it takes the place of an earlier one."""
        second = pieces[1].data[:256] if len(pieces) > 1 else b""
        key = (group, b"%b\0%b" % (pieces[0].data[:256], second))
        self.conversations[key] = pieces
        self.conversations.move_to_end(key)
        self.bytes -= self.sizes.get(key, 0)
        size = 0
        for piece in pieces:
            size += len(piece.data)
        self.sizes[key] = size
        self.bytes += size
        while len(self.conversations) > KEPT or (self.bytes > BYTES and self.conversations):
            gone, _ = self.conversations.popitem(last=False)
            self.bytes -= self.sizes.pop(gone)

    def difference(self, group: str, pieces: tuple[Piece, ...]) -> str:
        """One sentence about the nearest conversation of the same group; empty if there is none."""
        near = [kept for (owner, _), kept in self.conversations.items() if owner == group]
        if not near or not pieces:
            return ""
        (index, at), nearest = max(((shared(kept, pieces), kept) for kept in near), key=lambda found: found[0])
        if index >= len(nearest) or index >= len(pieces):
            return "it extends an earlier conversation, whose cache is gone"
        before, now = excerpt(nearest[index].data, at), excerpt(pieces[index].data, at)
        name, byte = part_of(pieces[index], at)
        return f"{name[:SHOWN]} differs at byte {byte}: `{before}` → `{now}`"
