"""A conversation as a chain of hashes: how two prompts are compared without the engine and without their text.

What shapes a prompt comes as *pieces* in prompt order (head, then messages). Each piece is one SHA-256 that begins
with the digest of the piece before it, so the digest at any place stands for everything before that place and for
nothing after it. *Cuts* are the places where we look: each piece's end, each mark (the end of a template's static
beginning) and every 16 KiB inside a long piece. Two prompts share exactly the cuts of their common beginning.

    head ──┬── message 1 ──┬── message 2        sha(root), sha(root · head), sha(sha(root · head) · message 1), …
           cut      mark   cut           cut

A cut at a mark and a cut at the end of a piece that stops there have the same digest on purpose: a warm-up's prompt
prefix ends at the mark, and must be found by the request that goes on from there.

The engine's fingerprint is the root where a caller gives one. The keeper gives none: it keeps snapshots apart by the
fingerprint in their description, so that a request that waits while its engine comes back with another model does not
carry hashes of the old one. The text itself is never kept, only 16 bytes per cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence

from bioproxy.prompt import Cut, Piece

STRIDE = 16 * 1024  # bytes between cuts inside a piece
DIGEST = 16  # bytes of a digest that are kept


def places(piece: Piece) -> list[int]:
    """Offsets in `piece.data` where a cut is wanted, ascending, the end included, 0 left out (no text, no cut)."""
    size = len(piece.data)
    if size <= STRIDE and not piece.marks:
        return [size]
    wanted = {mark for mark in piece.marks if 0 < mark < size}
    wanted.update(range(STRIDE, size, STRIDE))
    wanted.add(size)
    return sorted(wanted)


def chain(fingerprint: str, pieces: Sequence[Piece]) -> tuple[Cut, ...]:
    """The cuts through `pieces`, in order; offsets count the bytes of all pieces before. About 1 µs per kB.

    Empty pieces still count (an empty message is a message), so two cuts may share an offset, never a digest.
    """
    cuts: list[Cut] = []
    before = hashlib.sha256(fingerprint.encode()).digest()
    offset = 0
    for piece in pieces:
        running = hashlib.sha256(before)
        done = 0
        data = memoryview(piece.data)
        for place in places(piece):
            running.update(data[done:place])
            done = place
            before = running.digest()
            cuts.append(Cut(before[:DIGEST], offset + place))
        offset += len(data)
    return tuple(cuts)


def tokens_at(cuts: Sequence[Cut], tokens: int, digest: bytes) -> int:
    """About how many of a prompt's `tokens` stand before the cut `digest`, by its share of the bytes; 0: no such cut.

    Exact at the end only; good enough to weigh one snapshot against another.
    """
    if not cuts or cuts[-1].digest == digest:
        return tokens if cuts else 0
    offset = next((cut.offset for cut in reversed(cuts) if cut.digest == digest), 0)
    return tokens * offset // cuts[-1].offset if offset else 0


def common(cuts: Sequence[Cut], known: Container[bytes]) -> int:
    """How many of `cuts` are a beginning that `known` (digests) shares; 0 if none.

    Walks from the end: a conversation that goes on differs in its last cuts only, so this looks at two or three.
    """
    for position in range(len(cuts), 0, -1):
        if cuts[position - 1].digest in known:
            return position
    return 0
