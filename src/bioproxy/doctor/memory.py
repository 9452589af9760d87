"""The last prompts of each group of keys, found by conversation and by the id of a request or of its answer.

They stay in memory only, in so many bytes as `doctor.memory` says; the oldest goes first. A prompt that goes on from
the one before it has the same pieces, so these are kept once: a conversation of a hundred turns takes little more than
its last turn. One group never sees another's prompts: whoever looks says for which group.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec

from bioproxy.doctor.compare import Prompt, equal, equal_pieces
from bioproxy.prompt import common

OVERHEAD = 2048  # bytes that a prompt takes beside its texts
FEW = 2  # messages of two prompts that are equal, from which on they are of one conversation
LIKE = 256  # bytes that the heads of two conversations begin with, from which on they are alike
TELLING = 64  # bytes of such a message: a "yes" or "go on" says nothing
CANDIDATES = 256  # prompts of a group that are looked at, the newest first


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked, and which process of the engine computed it (`life` counts them)."""

    client: str
    session: str = ""
    life: int = 0


class Kept(msgspec.Struct, kw_only=True):
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
        self.bytes = 0
        self.numbers = count(1)

    def add(self, prompt: Prompt, visit: Visit, ids: Sequence[str], *, limit: int, earlier: Kept | None = None) -> Kept:
        """Keep a prompt, in `limit` bytes with all others; `earlier` is the one that it goes on from, if it does."""
        kept = Kept(number=next(self.numbers), prompt=prompt, visit=visit, ids=tuple(ids), size=size_of(prompt))
        if earlier is not None and earlier.number in self.kept:
            self.thin(earlier, prompt)
        self.kept[kept.number] = self.groups.setdefault(prompt.group, {})[kept.number] = kept
        self.ids.update({(prompt.group, identity): kept for identity in kept.ids})
        self.bytes += kept.size
        self.keep_within(limit)
        return kept

    def thin(self, kept: Kept, later: Prompt) -> None:
        """`later` has all of its pieces: keep them once. Its body will not be asked for any more."""
        prompt = msgspec.structs.replace(
            kept.prompt,
            pieces=later.pieces[: len(kept.prompt.pieces)],
            sent=later.sent[: len(kept.prompt.sent)],
            body=b"",
        )
        self.bytes -= kept.size - OVERHEAD
        kept.prompt, kept.size = prompt, OVERHEAD

    def keep_within(self, limit: int) -> None:
        """Forget the oldest until all of them take no more than `limit` bytes."""
        while self.bytes > limit and self.kept:
            oldest = self.kept.pop(next(iter(self.kept)))
            group = self.groups[oldest.prompt.group]
            del group[oldest.number]
            if not group:
                del self.groups[oldest.prompt.group]
            for identity in oldest.ids:
                if self.ids.get(key := (oldest.prompt.group, identity)) is oldest:
                    del self.ids[key]
            self.bytes -= oldest.size

    def find(self, group: str, identity: str) -> Kept | None:
        """The prompt of a request of this group, by its id or by its answer's; None if it is not known, or any more."""
        return self.ids.get((group, identity))

    def candidates(self, group: str) -> list[Kept]:
        """The newest prompts of a group, the newest first."""
        found = self.groups.get(group, {})
        return [found[number] for _, number in zip(range(CANDIDATES), reversed(found), strict=False)]

    def elsewhere(self, prompt: Prompt) -> bool:
        """Whether this goes on from a prompt that another group sent. For the operator only."""
        others = (kept.prompt for kept in reversed(self.kept.values()) if kept.prompt.group != prompt.group)
        near = (other for _, other in zip(range(CANDIDATES), others, strict=False))
        return any(2 <= len(other.pieces) < len(prompt.pieces) and goes_on(other, prompt) for other in near)

    def since(self, kept: Kept, model: str) -> list[Kept]:
        """The prompts that a model got after this one."""
        return [one for one in self.kept.values() if one.number > kept.number and one.prompt.model == model]


def size_of(prompt: Prompt) -> int:
    """Bytes that a prompt takes in memory; the texts before templates were filled in are mostly the same objects."""
    known = {id(piece.data) for piece in prompt.pieces}
    sent = sum(len(data) for data in prompt.sent if id(data) not in known)
    return OVERHEAD + prompt.size + sent + len(prompt.body)


def goes_on(earlier: Prompt, later: Prompt) -> bool:
    """Whether the later prompt has all pieces of the earlier one."""
    return len(earlier.pieces) <= len(later.pieces) and equal_pieces(earlier.pieces, later.pieces) == len(
        earlier.pieces
    )


def nearest(candidates: Sequence[Kept], prompt: Prompt, session: str = "") -> Kept | None:
    """The prompt of the same conversation that shares most with this one, the newest of several; None: it is new.

    Two that name different sessions are different conversations. Of one session there may be several (an agent and its
    helpers), so what they say decides.
    """
    best, most = None, (0, 0)
    for kept in candidates:
        theirs = kept.visit.session
        if not (session and theirs) or session == theirs:
            near = kinship(kept.prompt, prompt, surely=bool(session) and session == theirs)
            if near > most:
                best, most = kept, near
    return best


def kinship(earlier: Prompt, later: Prompt, *, surely: bool = False) -> tuple[int, int]:
    """How near two prompts are: the leading messages that are equal, then whether the head is; (0, 0): strangers.

    A conversation is known by its first message. Clients that put a counter or the time into that one, or shorten the
    conversation, send others as they were: then it takes `FEW` of these, or one if the client says (`surely`) that it
    is the same session. A first message that was edited is one, and what stands in the same place after it is another.
    The head decides nothing: it is what changes most often.
    """
    one, other = words_of(earlier), words_of(later)
    if not (one and other):
        return 0, 0
    if earlier.pieces[0].label == "prompt" or later.pieces[0].label == "prompt":
        shared = common(one[0], other[0])
        return (shared, 0) if 2 * shared >= min(len(one[0]), len(other[0])) else (0, 0)
    if leading := equal(one[1:], other[1:]):
        return 1 + leading, one[0] == other[0]
    known = set(one[1:])
    shared = sum(len(data) >= TELLING and data in known for data in other[1:])
    if len(one) > 1 < len(other) and edited(one[1], other[1]):
        shared += 1 + any(was == now for was, now in zip(one[2:], other[2:], strict=False))
    return (1, shared) if shared >= (1 if surely else FEW) else (0, 0)


def words_of(prompt: Prompt) -> Sequence[bytes]:
    """A prompt's head and messages as the client sent them."""
    return prompt.sent or [piece.data for piece in prompt.pieces]


def edited(one: bytes, other: bytes) -> bool:
    """Whether one text is the other with a change somewhere in it: most of it stands before and after that."""
    most = min(len(one), len(other))
    start = common(one, other)
    end = common(one[: start - len(one) - 1 : -1], other[: start - len(other) - 1 : -1]) if start < most else 0
    return start + end >= TELLING and 2 * (start + end) >= max(len(one), len(other))


def like(candidates: Sequence[Kept], prompt: Prompt) -> Kept | None:
    """Another conversation whose head begins most like this one's; None if one begins with the same, or none alike."""
    if not prompt.pieces or prompt.pieces[0].label != "head":
        return None
    best, most, seen, head = None, LIKE, set[bytes](), prompt.pieces[0].data
    for kept in candidates:
        data = kept.prompt.pieces[0].data
        if data == head:
            return None
        if data not in seen and (shared := common(data, head)) > most:
            best, most = kept, shared
        seen.add(data)
    return best
