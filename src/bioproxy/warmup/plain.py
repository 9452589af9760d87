"""Heads without a prefix: which long beginnings the conversations of a group share, so that they are kept warm.

What an agent sends before the first user message (its system message, its tools) is the same in each session, and is
often the longest part of the prompt. Once two conversations of a group began with it, it is warmed and saved at its end
like a template's prompt prefix: a new session goes on from there even if no conversation with it was saved, and so does
a model whose cache cannot be left in the middle. It is its group's alone (kv-rule 22).

Until a head counts only digests of it are remembered, so one that comes once (a document in a system message) costs
nothing and is kept nowhere. Two sessions may also begin with the same words: those are told apart by their second turn.

Of a head that changes at each turn (unstable.py) what is kept is its beginning, up to the first place that changes.

No clock of its own, no file, no loop: heads.py keeps what is here in its file, runner.py warms it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter

import msgspec

from bioproxy.kv.chain import chain
from bioproxy.prompt import Cut, Head, Piece
from bioproxy.templates.dialect_heads import head_piece
from bioproxy.warmup.unstable import Stable

SHORTEST = 1024  # bytes of a prompt, or of a head, that is looked at
LARGEST = 1 << 20  # bytes of one head; larger ones are not kept
ENOUGH = 2  # conversations that make a head count
SECOND_TURN = 3  # the place of its user message, after head, first message and answer
KEPT = 16  # heads of each group; what is worth least goes
MOST = 64 << 20  # bytes of all heads of all groups
WATCHED = 1024  # heads that do not count yet; what was seen least recently goes
HALF_LIFE = 7 * 86400.0  # seconds in which a head that nobody uses loses half of its worth
OFFSET = attrgetter("offset")


class Plain(msgspec.Struct, kw_only=True):
    """One head that counts, of one group: when it was last used (unix time), how many conversations began with it.

    `last` is the newest of them. Of an unstable head only the first `cut` bytes count (0: all); `other` is the same
    head as it was a turn before.
    """

    group: str
    head: Head
    used: float
    sessions: int = ENOUGH
    last: bytes = b""
    cut: int = 0
    other: Head | None = None


class Watched(msgspec.Struct):
    """What followed a head: the chain's digests at the ends of first messages, and of second user messages."""

    openings: set[bytes] = msgspec.field(default_factory=set)
    turns: set[bytes] = msgspec.field(default_factory=set)

    @property
    def sessions(self) -> int:
        """How many conversations that must have been."""
        return max(len(self.openings), len(self.turns))


class Wanted(msgspec.Struct, frozen=True):
    """A head that shall be warm: its group's, under a name that tells nothing of its text; the rest as in Plain."""

    group: str
    name: str
    head: Head
    cut: int = 0
    other: Head | None = None
    used: float = 0.0


class PlainHeads:
    """The heads without a prefix, by group and digest. `limit` says how many of each group shall be warm."""

    def __init__(self, *, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self.limit = limit
        self.clock = clock
        self.kept: dict[tuple[str, bytes], Plain] = {}
        self.watched: dict[tuple[str, bytes], Watched] = {}

    def began(self, group: str, cuts: Sequence[Cut], pieces: Sequence[Piece], head: Head) -> bool:
        """A request of `group` came, with the chain `cuts` through its `pieces`, `head` first; if another head counts.

        The usual case, a head that counts already, takes a look-up.
        """
        if len(pieces[0].data) < SHORTEST:
            return False
        key = group, digest_of(cut_after(cuts, pieces, 0), head)
        opening = cut_after(cuts, pieces, 1).digest
        known = self.kept.get(key)
        if known is not None:
            known.used = self.clock()
            if known.last != opening:
                known.sessions += bool(known.last)
                known.last = opening
            return False
        seen = self.watched.pop(key, None) or Watched()
        seen.openings.add(opening)
        if len(pieces) > SECOND_TURN:
            seen.turns.add(cut_after(cuts, pieces, SECOND_TURN).digest)
        if seen.sessions >= ENOUGH and weight(head) <= LARGEST and self.limit():
            self.keep(key, Plain(group=group, head=head, used=self.clock(), last=opening))
            return True
        self.watched[key] = seen
        if len(self.watched) > WATCHED:
            del self.watched[next(iter(self.watched))]
        return False

    def changed(self, group: str, stable: Stable) -> bool:
        """A request of `group` came whose head will not come again; if its stable beginning counts from now on."""
        if stable.cut is None or stable.cut.offset < SHORTEST or not self.limit():
            return False
        key = group, digest_of(stable.cut, stable.head)
        known = self.kept.get(key)
        if known is not None:
            known.used = self.clock()
        elif weight(stable.head) <= LARGEST:
            one = Plain(group=group, head=stable.head, used=self.clock(), cut=stable.cut.offset, other=stable.other)
            self.keep(key, one)
        return known is None

    def keep(self, key: tuple[str, bytes], plain: Plain) -> None:
        """Take a head in, and let those go that are worth least, if there are too many or too much of them."""
        self.kept[key] = plain
        own = [one for one, kept in self.kept.items() if kept.group == plain.group]
        if len(own) > KEPT:
            del self.kept[min(own, key=self.worth)]
        while sum(weight(one.head) for one in self.kept.values()) > MOST:
            del self.kept[min(self.kept, key=self.worth)]

    def worth(self, key: tuple[str, bytes]) -> float:
        one = self.kept[key]
        return worth(weight(one.head), one.sessions, self.clock() - one.used)

    def wanted(self) -> list[Wanted]:
        """What shall be warm, the most valuable first: of each group the few that are worth most."""
        found: list[Wanted] = []
        count: Counter[str] = Counter()
        for group, digest in sorted(self.kept, key=self.worth, reverse=True):
            count[group] += 1
            if count[group] <= self.limit():
                one = self.kept[group, digest]
                found.append(Wanted(group, name_of(group, digest), one.head, one.cut, one.other, one.used))
        return found

    def forget(self, before: float) -> bool:
        """Drop what was last used before that unix time; whether there was any."""
        old = [key for key, one in self.kept.items() if one.used < before]
        for key in old:
            del self.kept[key]
        return bool(old)

    def take_in(self, stored: Iterable[Plain]) -> None:
        """What a file said, unless something newer is known."""
        for one in stored:
            cuts = [cut for cut in chain("", [head_piece(one.head)]) if not one.cut or cut.offset <= one.cut]
            key = one.group, digest_of(cuts[-1], one.head)
            if key not in self.kept:
                self.keep(key, one)


def cut_after(cuts: Sequence[Cut], pieces: Sequence[Piece], place: int) -> Cut:
    """The cut at the end of the piece at `place`, or at the end of all if there are fewer."""
    end = sum([len(piece.data) for piece in pieces[: place + 1]])
    return cuts[bisect_left(cuts, end, key=OFFSET)]


def digest_of(cut: Cut, head: Head) -> bytes:
    """What a head is known by: its end in the chain, and what shapes the prompt and stands in no piece."""
    if not head.kwargs and not head.extra:
        return cut.digest
    return hashlib.sha256(cut.digest + msgspec.msgpack.encode((head.kwargs, head.extra))).digest()[:16]


def name_of(group: str, digest: bytes) -> str:
    return hashlib.sha256(digest + group.encode()).hexdigest()[:8]


def weight(head: Head) -> int:
    return sum(len(part) for part in (head.messages, head.tools, head.kwargs, head.lora, head.extra))


def worth(size: int, sessions: int, age: float) -> float:
    """What a head is worth: its length for each conversation that began with it, halved for each week without one."""
    return size * sessions * math.pow(0.5, max(0.0, age) / HALF_LIFE)
