"""Conversations as chains of hashes: equal beginnings share cuts, and nothing else does."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import (
    COARSE,
    DIGEST,
    FAR,
    NEAR,
    PLENTY,
    STRIDE,
    Memory,
    chain,
    common,
    line_ends,
    places,
    tokens_at,
)
from bioproxy.prompt import Cut, Piece

texts = st.lists(st.binary(max_size=40), max_size=6)


def pieces(*texts: bytes) -> list[Piece]:
    return [Piece(f"piece {number}", text) for number, text in enumerate(texts)]


def digests(cuts: tuple[Cut, ...]) -> list[bytes]:
    return [cut.digest for cut in cuts]


@given(texts, texts, texts)
def test_conversations_share_exactly_the_cuts_of_their_common_beginning(
    shared: list[bytes], one: list[bytes], other: list[bytes]
) -> None:
    """Two conversations that part after n pieces have n cuts in common, whatever comes after."""
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    left, right = chain("", pieces(*shared, *one)), chain("", pieces(*shared, *other))
    assert left[: len(shared)] == right[: len(shared)]
    assert not set(digests(left[len(shared) :])) & set(digests(right[len(shared) :]))


@given(texts, texts)
def test_the_same_bytes_in_other_pieces_are_another_prompt(one: list[bytes], other: list[bytes]) -> None:
    """Where one message ends and the next begins counts, also for empty messages."""
    if one and other and one != other:
        assert chain("", pieces(*one))[-1].digest != chain("", pieces(*other))[-1].digest


@given(texts)
def test_offsets_count_the_bytes_before_a_cut(given_texts: list[bytes]) -> None:
    """The last cut stands at the end, and offsets never fall."""
    cuts = chain("", pieces(*given_texts))
    offsets = [cut.offset for cut in cuts]
    assert offsets == sorted(offsets)
    assert offsets[-1:] == [sum(map(len, given_texts))] * bool(given_texts)


@given(st.binary(min_size=2, max_size=60), st.data())
def test_a_mark_is_the_end_of_the_piece_that_stops_there(data: bytes, draw: st.DataObject) -> None:
    """A warm-up's prompt prefix has the digest that a request has at its template's boundary."""
    mark = draw.draw(st.integers(1, len(data) - 1))
    request = chain("", [Piece("head", b"system"), Piece("message", data, (mark,))])
    warmed = chain("", [Piece("head", b"system"), Piece("message", data[:mark], (mark,))])
    assert warmed[-1] in request


def lines(seed: int, count: int = 4000) -> bytes:
    """Some text: lines of 1 to 12 words."""
    random = Random(seed)
    words = [bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(2000)]
    return b"".join(b" ".join(random.choices(words, k=random.randint(1, 12))) + b"\n" for _ in range(count))


PERIODIC = b"".join(b"line %d of the document\n" % number for number in range(8000))
RANDOM = Random(1).randbytes(100_000)
TEXTS = {
    "words": lines(1),
    "numbered lines": PERIODIC,
    "a table": b"".join(b"%d,%d,%d\n" % (n * 7919 % 1000, n * 104729 % 100_003, n) for n in range(8000)),
    "long lines": lines(2).replace(b"\n", b". ", 3800),
    "base64": base64.b64encode(RANDOM),
    "JSON on one line": json.dumps([{"id": n, "name": f"x{n * 7919}"} for n in range(8000)]).encode(),
    "JSON with line ends": json.dumps(lines(3).decode()).encode(),
    "one letter": b"a" * 200_000,
    "line ends only": b"\n" * 200_000,
    "one line again and again": b"all work and no play makes Jack a dull boy\n" * 5000,
    "one long line": lines(4, 200) + b"x" * 20_000 + lines(5, 200),
    "bytes": RANDOM,
}


@pytest.mark.parametrize("kind", TEXTS)
def test_cuts_lie_neither_close_together_nor_far_apart(kind: str) -> None:
    """Whatever the text is, also one made to be cut everywhere or nowhere: 0.5 to 1.2 cuts in a KiB, none far away."""
    data = TEXTS[kind]
    offsets = [cut.offset for cut in chain("", [Piece("", data)])]
    gaps = [after - before for before, after in pairwise([0, *offsets])]
    assert len(data) / 2048 < len(offsets) < len(data) / 400
    assert max(gaps) <= FAR * STRIDE
    assert sum(gap < NEAR for gap in gaps) <= len(gaps) // 50 + 1


@pytest.mark.parametrize("kind", ["words", "numbered lines", "a table", "JSON with line ends"])
def test_an_insertion_moves_no_later_cut(kind: str) -> None:
    """What is put in is seen near it and nowhere else, be it at the beginning or in the middle."""
    data = TEXTS[kind]
    before = places(Piece("", data))
    mark = b"\\n" if kind.startswith("JSON") else b"\n"
    for place in (1, len(data) // 2):
        at, new = data.index(mark, place) + len(mark), b"Something else, 2026" + mark
        after = places(Piece("", data[:at] + new + data[at:]))
        assert [cut for cut in after if cut < at - 2 * NEAR] == [cut for cut in before if cut < at - 2 * NEAR]
        far = at + 2 * FAR * STRIDE
        assert [cut - len(new) for cut in after if cut - len(new) > far] == [cut for cut in before if cut > far]


def test_cuts_are_line_ends() -> None:
    """In text as in JSON, where a line end is written with two letters."""
    data = TEXTS["words"]
    assert all(data[cut - 1 : cut] == b"\n" for cut in places(Piece("", data)))
    data = TEXTS["JSON with line ends"]
    assert all(data[cut - 2 : cut] == rb"\n" for cut in places(Piece("", data))[:-1])


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_share_the_cuts_of_their_common_beginning(kind: str) -> None:
    """A question that changes behind a document: all but the last stretch of the document is common."""
    data = TEXTS[kind][:50_000]
    one, other = (chain("", [Piece("", data + question)]) for question in (b"\nwhat?", b"\nAnd why is that so?\n"))
    shared = [cut for cut in one if cut in other]
    assert shared == list(one[: len(shared)])
    assert shared[-1].offset > len(data) - FAR * STRIDE - NEAR


def test_only_the_first_mib_of_a_prompt_is_looked_at_line_by_line() -> None:
    """A body of any size holds nobody up; further on there is a line end at each 16 KiB."""
    piece = Piece("", TEXTS["words"])
    assert places(piece, PLENTY - STRIDE)[2:] != places(piece)[2:]
    gaps = [after - before for before, after in pairwise(places(Piece("", piece.data * 20), PLENTY))]
    assert all(COARSE / 2 < gap <= COARSE for gap in gaps[:-2])
    assert len(places(Piece("", b"x" * (20 << 20)))) < 3000


def test_a_piece_that_was_seen_is_not_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation sends all its messages with each turn; what is remembered of them is bounded."""
    looked: list[int] = []

    def counting(data: bytes, mark: bytes) -> Iterator[int]:
        looked.append(len(data))
        return line_ends(data, mark)

    monkeypatch.setattr("bioproxy.kv.chain.memory", memory := Memory())
    monkeypatch.setattr("bioproxy.kv.chain.line_ends", counting)
    texts = [lines(seed, 100) for seed in range(4)]
    turns = [chain("", pieces(*texts[:count])) for count in (1, 2, 3, 4, 4)]
    assert looked == [len(text) for text in texts]
    assert turns[-1][: len(turns[0])] == turns[0]
    monkeypatch.setattr("bioproxy.kv.chain.REMEMBERED", 20)
    chain("", pieces(lines(9, 100)))
    assert memory.count == sum(map(len, memory.cuts.values())) <= 20


def test_another_root_shares_nothing() -> None:
    """What belongs to another fingerprint is another chain."""
    assert not set(digests(chain("a", pieces(b"x", b"y")))) & set(digests(chain("b", pieces(b"x", b"y"))))


def test_the_chain_is_plain_sha_256() -> None:
    """Digests on disk mean the same in every version: sha256(previous digest + data), 16 bytes kept."""
    root = hashlib.sha256(b"").digest()
    first = hashlib.sha256(root + b"head").digest()
    second = hashlib.sha256(first + b"hello").digest()
    assert chain("", pieces(b"head", b"hello")) == (Cut(first[:DIGEST], 4), Cut(second[:DIGEST], 9))


@given(texts, st.integers(0, 6))
def test_common_counts_the_shared_beginning(given_texts: list[bytes], count: int) -> None:
    """Of a conversation that goes on, all old cuts are known."""
    cuts = chain("", pieces(*given_texts))
    known = frozenset(digests(cuts[:count]))
    assert common(cuts, known) == min(count, len(cuts))


class Asked(set[bytes]):
    """Digests that count how often they are asked for one."""

    count = 0

    def __contains__(self, digest: object) -> bool:
        self.count += 1
        return super().__contains__(digest)


def test_slots_that_hold_nothing_cost_nothing() -> None:
    """An engine may have hundreds; and one that holds all of a prompt is asked once."""
    cuts = chain("", [Piece("", TEXTS["words"])])
    empty, full = Asked(), Asked(digests(cuts))
    assert (common(cuts, empty), common(cuts, full)) == (0, len(cuts))
    assert (empty.count, full.count) == (0, 1)


def test_tokens_are_shared_out_by_bytes() -> None:
    """Half the bytes count as half the tokens; the end is exact, a strange cut is nothing."""
    cuts = chain("", pieces(b"a" * 30, b"b" * 30))
    assert tokens_at(cuts, 21, cuts[0].digest) == 10
    assert tokens_at(cuts, 21, cuts[1].digest) == 21
    assert tokens_at(cuts, 21, b"strange") == 0
    assert tokens_at((), 21, b"") == 0
