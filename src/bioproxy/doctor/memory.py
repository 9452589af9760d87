"""The last prompts of each group of keys, found by conversation and by the id of a request or of its answer.

They stay in memory only, in so many bytes as `doctor.memory` says; the oldest goes first. A prompt that goes on from
the one before it has the same pieces, so these are kept once: a conversation of a hundred turns takes little more than
its last turn. One group never sees another's prompts: whoever looks says for which group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count
from operator import attrgetter

import msgspec

from bioproxy.doctor.compare import Prompt
from bioproxy.doctor.nearest import Opening, goes_on, kinship, openings

OVERHEAD = 2048  # bytes that a prompt takes beside its texts
CANDIDATES = 32  # prompts of a group that are looked at if none opens alike, the newest first
NUMBER = attrgetter("number")
ALIKE = 8  # prompts that open alike and can be found by that: the newest


class Visit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who asked, by which rule beside a conversation, and which process of the engine computed it (`life` counts)."""

    client: str
    session: str = ""
    side: str = ""
    life: int = 0


class Kept(msgspec.Struct, kw_only=True, gc=False):
    """One prompt in memory. `number` counts all prompts; `ids` are those of the request and of its answer."""

    number: int
    prompt: Prompt
    visit: Visit
    ids: tuple[str, ...]
    size: int


class Memory:
    """The prompts, the oldest first."""

    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}
        self.groups: dict[str, dict[int, Kept]] = {}
        self.ids: dict[tuple[str, str], Kept] = {}
        self.openings: dict[tuple[str, Opening], deque[Kept]] = {}
        self.bytes = 0
        self.numbers = count(1)

    def add(self, prompt: Prompt, visit: Visit, ids: Sequence[str], *, limit: int, earlier: Kept | None = None) -> Kept:
        """Keep a prompt, in `limit` bytes with all others; `earlier` is the one that it goes on from, if it does."""
        if earlier is not None and earlier.number in self.kept and earlier.size > 2 * OVERHEAD:
            prompt = self.share(earlier, prompt)
        kept = Kept(number=next(self.numbers), prompt=prompt, visit=visit, ids=tuple(ids), size=size_of(prompt))
        self.kept[kept.number] = self.groups.setdefault(prompt.group, {})[kept.number] = kept
        self.ids.update({(prompt.group, identity): kept for identity in kept.ids})
        for opening in openings(prompt)[:1]:
            self.openings.setdefault((prompt.group, opening), deque(maxlen=ALIKE)).append(kept)
        self.bytes += kept.size
        self.keep_within(limit)
        return kept

    def share(self, kept: Kept, later: Prompt) -> Prompt:
        """`later` has all pieces of `kept`, whose body will not be asked for any more: keep once what is equal."""
        before = kept.prompt
        self.bytes -= kept.size - OVERHEAD
        kept.prompt = msgspec.structs.replace(before, sent=later.sent[: len(before.sent)], body=b"")
        kept.size = OVERHEAD
        return msgspec.structs.replace(later, pieces=(*before.pieces, *later.pieces[len(before.pieces) :]))

    def keep_within(self, limit: int) -> None:
        """Forget the oldest until all of them take no more than `limit` bytes."""
        while self.bytes > limit and self.kept:
            self.forget(self.kept.pop(next(iter(self.kept))))

    def forget(self, oldest: Kept) -> None:
        """Take it out of all tables; in each it is the oldest."""
        group = oldest.prompt.group
        del self.groups[group][oldest.number]
        if not self.groups[group]:
            del self.groups[group]
        for identity in oldest.ids:
            if self.ids.get((group, identity)) is oldest:
                del self.ids[group, identity]
        for opening in openings(oldest.prompt)[:1]:
            alike = self.openings[group, opening]
            if alike[0] is oldest:
                alike.popleft()
            if not alike:
                del self.openings[group, opening]
        self.bytes -= oldest.size

    def find(self, group: str, identity: str) -> Kept | None:
        """The prompt of a request of this group, by its id or by its answer's; None if it is not known, or any more."""
        return self.ids.get((group, identity))

    def alike(self, group: str, prompt: Prompt) -> list[Kept]:
        """The newest prompts of a group that open as this one does, the newest first."""
        found: list[Kept] = []
        for opening in openings(prompt):
            found += self.openings.get((group, opening), ())
        found.sort(key=NUMBER, reverse=True)
        return found

    def newest(self, group: str) -> list[Kept]:
        """The newest prompts of a group, the newest first."""
        found = self.groups.get(group, {})
        return [found[number] for _, number in zip(range(CANDIDATES), reversed(found), strict=False)]

    def elsewhere(self, prompt: Prompt) -> bool:
        """Whether this goes on from a prompt that another group sent. For the operator only."""
        others = (kept.prompt for group in self.groups if group != prompt.group for kept in self.alike(group, prompt))
        return any(2 <= len(other.pieces) < len(prompt.pieces) and goes_on(other, prompt) for other in others)

    def since(self, kept: Kept, model: str) -> list[Kept]:
        """The prompts that a model got after this one, the oldest first."""
        found = []
        for one in reversed(self.kept.values()):
            if one.number <= kept.number:
                break
            if one.prompt.model == model:
                found.append(one)
        return found[::-1]


def size_of(prompt: Prompt) -> int:
    """Bytes that a prompt takes in memory; the texts before templates were filled in are mostly the same objects."""
    known = {id(piece.data) for piece in prompt.pieces} if prompt.sent else ()
    sent = sum(len(data) for data in prompt.sent if id(data) not in known)
    return OVERHEAD + prompt.size + sent + len(prompt.body)


def of_one(session: str, other: str) -> bool:
    """Whether requests of these sessions may be of one conversation: few clients name theirs."""
    return session == other or not (session and other)


def nearest(candidates: Iterable[Kept], prompt: Prompt, session: str = "") -> Kept | None:
    """The prompt of the same conversation that shares most with this one, the newest of several; None: it is new.

    `candidates`: the newest first. Of two that share as much, the one of the same model is nearer. Two that name
    different sessions are different conversations. Of one session there may be several (an agent and its helpers), so
    what they say decides.
    """
    best, most = None, (0, 0, False)
    for kept in candidates:
        theirs = kept.visit.session
        if of_one(session, theirs):
            same = kept.prompt.model == prompt.model
            if same and goes_on(kept.prompt, prompt):
                return kept  # as nearly always
            shared, head = kinship(kept.prompt, prompt, surely=bool(session) and session == theirs)
            if shared and (shared, head, same) > most:
                best, most = kept, (shared, head, same)
    return best
