"""Which of the earlier prompts is of the same conversation. Pure.

A conversation is known by how it opens: its first message, and the answer to that. Clients that put a counter or the
time into the first message, or shorten the conversation, send others as they were; those are looked for only if nothing
opens alike. The head (system messages, tools) decides nothing, because it is what changes most often.
"""

from __future__ import annotations

from collections.abc import Sequence

from bioproxy.doctor.compare import Prompt, equal_pieces
from bioproxy.prompt import common

FEW = 2  # messages of two prompts that are equal, from which on they are of one conversation
TELLING = 64  # bytes of such a message: a "yes" or "go on" says nothing
LIKE = 256  # bytes that the heads of two conversations begin with, from which on they are alike
OPENING = 64  # bytes of a message by which it is looked up

Opening = tuple[int | bytes, ...]


def words_of(prompt: Prompt) -> Sequence[bytes]:
    """A prompt's head and messages as the client sent them."""
    return prompt.sent or [piece.data for piece in prompt.pieces]


def openings(prompt: Prompt) -> tuple[Opening, ...]:
    """What a prompt is looked up by: its first message and the answer to it, then the first message alone.

    Lengths and a few bytes: `kinship` looks closer. It is kept under the first of them. A completion's prompt grows, so
    its length does not count.
    """
    words = prompt.sent or [piece.data for piece in prompt.pieces[:3]]
    if len(words) < 2:
        return tuple((text[:OPENING],) for text in words)
    first = len(words[1]), words[1][:OPENING]
    return (first,) if len(words) == 2 else ((*first, len(words[2]), words[2][:OPENING]), first)


def goes_on(earlier: Prompt, later: Prompt) -> bool:
    """Whether the later prompt has all pieces of the earlier one."""
    return equal_pieces(earlier.pieces, later.pieces) == len(earlier.pieces)


def kinship(earlier: Prompt, later: Prompt, *, surely: bool = False) -> tuple[int, int]:
    """How near two prompts are: the leading messages that are equal, then whether the head is; (0, 0): strangers.

    Without an equal first message it takes `FEW` others, or one if the client says (`surely`) that it is the same
    session. A first message that was edited is one, and what stands in the same place after it is another.
    """
    one, other = words_of(earlier), words_of(later)
    if not (one and other):
        return 0, 0
    if earlier.pieces[0].label == "prompt" or later.pieces[0].label == "prompt":
        shared = common(one[0], other[0])
        return (shared, 0) if 2 * shared >= min(len(one[0]), len(other[0])) else (0, 0)
    pairs = list(zip(one[1:], other[1:], strict=False))
    leading = next((at for at, pair in enumerate(pairs) if pair[0] != pair[1]), len(pairs))
    if leading:
        return 1 + leading, one[0] == other[0]
    known = set(one[1:])
    shared = sum(len(data) >= TELLING and data in known for data in other[1:])
    if len(one) > 1 < len(other) and edited(one[1], other[1]):
        shared += 1 + any(was == now for was, now in pairs[1:])
    return (1, shared) if shared >= (1 if surely else FEW) else (0, 0)


def edited(one: bytes, other: bytes) -> bool:
    """Whether one text is the other with a change somewhere in it: most of it stands before and after that."""
    most = min(len(one), len(other))
    start = common(one, other)
    end = common(one[: start - len(one) - 1 : -1], other[: start - len(other) - 1 : -1]) if start < most else 0
    return start + end >= TELLING and 2 * (start + end) >= max(len(one), len(other))


def like(candidates: Sequence[Prompt], prompt: Prompt) -> Prompt | None:
    """Another conversation whose head begins most like this one's; None if one begins with the same, or none alike."""
    if not prompt.pieces or prompt.pieces[0].label != "head":
        return None
    best, most, seen, head = None, LIKE, set[bytes](), prompt.pieces[0].data
    for other in candidates:
        data = other.pieces[0].data
        if data == head:
            return None
        if data not in seen and data[:LIKE] == head[:LIKE] and (shared := common(data, head)) > most:
            best, most = other, shared
        seen.add(data)
    return best
