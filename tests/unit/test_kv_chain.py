"""Conversations as chains of hashes: equal beginnings share cuts, and nothing else does."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import DIGEST, STRIDE, chain, common, tokens_at
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


def test_long_pieces_are_cut_every_16_kib() -> None:
    """A conversation that parts in the middle of a long message still shares its beginning."""
    data = bytes(3 * STRIDE + 5)
    changed = data[: 2 * STRIDE + 1] + b"x" + data[2 * STRIDE + 2 :]
    one, other = chain("", [Piece("", data)]), chain("", [Piece("", changed)])
    assert [cut.offset for cut in one] == [STRIDE, 2 * STRIDE, 3 * STRIDE, 3 * STRIDE + 5]
    assert one[:2] == other[:2]
    assert not set(digests(one[2:])) & set(digests(other[2:]))


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


def test_tokens_are_shared_out_by_bytes() -> None:
    """Half the bytes count as half the tokens; the end is exact, a strange cut is nothing."""
    cuts = chain("", pieces(b"a" * 30, b"b" * 30))
    assert tokens_at(cuts, 21, cuts[0].digest) == 10
    assert tokens_at(cuts, 21, cuts[1].digest) == 21
    assert tokens_at(cuts, 21, b"strange") == 0
    assert tokens_at((), 21, b"") == 0
