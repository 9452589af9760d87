"""A conversation as a chain of hashes: how two prompts are compared without the engine and without their text.

What shapes a prompt comes as *pieces* in prompt order (head, then messages). Each piece is one SHA-256 that begins
with the digest of the piece before it, so the digest at any place stands for everything before that place and for
nothing after it. *Cuts* are the places where we look: each piece's end, each mark (the end of a template's static
beginning, of a system message, of a tool) and, inside a long piece, a line end about every 750 bytes. Two prompts share
exactly the cuts of their common beginning.

    head ──┬── message 1 ──┬── message 2        sha(root), sha(root · head), sha(sha(root · head) · message 1), …
           cut      mark   cut           cut

A cut at a mark and a cut at the end of a piece that stops there have the same digest on purpose: a warm-up's prompt
prefix ends at the mark, and must be found by the request that goes on from there. So it does not matter who makes how
many cuts: a digest depends on the bytes before it and on nothing else.

Which line ends are cut, inside a piece, is decided by the lines themselves: a line's checksum makes it a candidate, and
of candidates within `NEAR` bytes the lowest checksum wins. So text that is put in moves no cut that stands further on,
and cuts lie neither close together nor far apart, whatever the text. Text without line ends (base64, JSON on one line),
or with lines too short to be looked at one by one, or beyond the first MiB of a prompt, is cut every KiB instead.
Looking at lines costs several times what hashing does, so a piece is looked at once: a message that is sent again with
every turn is known by its digest.

The engine's fingerprint is the root if a caller gives one. The keeper gives none: it keeps snapshots apart by the
fingerprint in their description, so that a request that waits while its engine comes back with another model does not
carry hashes of the old one. The text itself is never kept, only 16 bytes per cut.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from threading import Lock

from bioproxy.prompt import Cut, Piece

DIGEST = 16  # bytes of a digest that are kept
NEAR = 400  # bytes within which one line end is chosen
ODDS = (1 << 32) // 256  # times its length: what a line's checksum must be below; one line end in 256 bytes is
STRIDE = 1024  # bytes between the cuts that are made where no line end is chosen; a shorter piece has none inside
FAR = 2  # strides without a chosen line end, in which they are made
SHORTEST = 8  # bytes that a line has on average, or lines are not looked at
PLENTY = 1 << 20  # bytes of a prompt whose lines are looked at, and in which cuts stand so close
COARSE = 16 << 10  # bytes between the cuts after those: each is looked up when a slot is filled
REMEMBERED = 1 << 16  # cuts of pieces that were seen before, about 10 MB


class Memory:
    """The cuts of the long pieces that were seen last, `REMEMBERED` in all, by the digest of what ends there."""

    def __init__(self) -> None:
        self.cuts: OrderedDict[tuple[bytes, tuple[int, ...]], tuple[Cut, ...]] = OrderedDict()
        self.count = 0
        self.lock = Lock()  # large prompts are hashed in threads

    def get(self, key: tuple[bytes, tuple[int, ...]]) -> tuple[Cut, ...] | None:
        """The cuts inside a piece, its end included; None if it was not seen lately."""
        with self.lock:
            found = self.cuts.get(key)
            if found is not None:
                self.cuts.move_to_end(key)
        return found

    def put(self, key: tuple[bytes, tuple[int, ...]], cuts: tuple[Cut, ...]) -> None:
        with self.lock:
            self.count += len(cuts) - len(self.cuts.get(key, ()))
            self.cuts[key] = cuts
            while self.count > REMEMBERED:
                self.count -= len(self.cuts.popitem(last=False)[1])


memory = Memory()


def chain(fingerprint: str, pieces: Sequence[Piece]) -> tuple[Cut, ...]:
    """The cuts through `pieces`, in order; offsets count the bytes of all pieces before.

    0.6 µs per kB of what was seen before, and 3 (one line) to 9 (code) of what was not.
    Empty pieces still count (an empty message is a message), so two cuts may share an offset, never a digest.
    """
    cuts: list[Cut] = []
    start = hashlib.sha256(fingerprint.encode()).digest()
    offset = 0
    for piece in pieces:
        running = hashlib.sha256(start)
        running.update(piece.data)
        end = running.digest()
        if len(piece.data) <= STRIDE and not piece.marks and piece.seams is None:
            cuts.append(Cut(end[:DIGEST], offset + len(piece.data)))
        else:
            key = end, piece.marks
            found = memory.get(key)
            if found is None:
                found = tuple(inside(piece, start, offset))
                memory.put(key, found)
            cuts += found
        start = end
        offset += len(piece.data)
    return tuple(cuts)


def inside(piece: Piece, start: bytes, offset: int) -> Iterator[Cut]:
    """The cuts of one piece, which begins at byte `offset` of the prompt with the digest `start`."""
    running, done, data = hashlib.sha256(start), 0, memoryview(piece.data)
    for place in places(piece, offset):
        running.update(data[done:place])
        done = place
        yield Cut(running.digest()[:DIGEST], offset + place)


def places(piece: Piece, offset: int = 0) -> list[int]:
    """Offsets in `piece.data` where a cut is wanted, ascending, the end included. `offset`: bytes before the piece."""
    data, size = piece.data, len(piece.data)
    wanted = {size, *piece.marks, *(piece.seams(data) if piece.seams is not None else ())}
    if size > STRIDE:
        mark = b"\n" if b"\n" in data else b"\\n"  # in JSON it is written with two letters
        wanted.update(filled(data, mark, line_ends(data[: max(0, PLENTY - offset)], mark), offset=offset))
    return sorted(place for place in wanted if 0 < place <= size) or [size]


def line_ends(data: bytes, mark: bytes) -> Iterator[int]:
    """The line ends (`mark`) that are chosen by what the lines say, more than `NEAR` bytes apart.

    Of equal lines the first one counts, so that a text that repeats itself is cut too. What is done for every line is
    done in C; the loop sees one line in 256 bytes.
    """
    lines = data.split(mark)
    if len(lines) * SHORTEST > len(data):
        return
    sizes = list(map(len, lines))
    measured = zip(range(1, len(lines)), accumulate(sizes), sizes, map(zlib.crc32, lines), strict=False)
    candidates = [(end + n * len(mark), sum_) for n, end, size, sum_ in measured if sum_ < size * ODDS]
    chosen = lowest = 0
    for end, checksum in candidates:
        if end - chosen > NEAR:
            if chosen:
                yield chosen
            chosen, lowest = end, checksum
        elif checksum < lowest:
            chosen, lowest = end, checksum
    if chosen:
        yield chosen


def filled(data: bytes, mark: bytes, ends: Iterable[int], *, offset: int) -> Iterator[int]:
    """The chosen line `ends`, and what is cut in between if they lie over `FAR` strides apart, at line ends too."""
    before = 0
    for end in (*ends, len(data)):
        while end - before > FAR * (step := STRIDE if offset + before < PLENTY else COARSE):
            found = data.rfind(mark, before + step // 2, before + step)
            before = found + len(mark) if found >= 0 else before + step
            yield before
        before = end
        yield end


def tokens_at(cuts: Sequence[Cut], tokens: int, digest: bytes) -> int:
    """About how many of a prompt's `tokens` stand before the cut `digest`, by its share of the bytes; 0: no such cut.

    Exact at the end only; good enough to weigh one snapshot against another.
    """
    if not cuts or cuts[-1].digest == digest:
        return tokens if cuts else 0
    offset = next((cut.offset for cut in reversed(cuts) if cut.digest == digest), 0)
    return tokens * offset // cuts[-1].offset if offset else 0


def common(cuts: Sequence[Cut], known: Collection[bytes]) -> int:
    """How many of `cuts` are a beginning that `known` (digests) shares; 0 if none.

    Walks from the end: a conversation that goes on differs in its last cuts only, so this looks at a few. An engine may
    have many slots that hold nothing.
    """
    if not known:
        return 0
    for position in range(len(cuts), 0, -1):
        if cuts[position - 1].digest in known:
            return position
    return 0
