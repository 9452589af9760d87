"""Where a missed prompt differs from the nearest conversation."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.front.recent import BYTES, KEPT, SHOWN, Recent
from bioproxy.prompt import Head, Piece, common
from bioproxy.templates.dialect_heads import head_piece


def pieces(*texts: str) -> tuple[Piece, ...]:
    return tuple(Piece(f"message {index}", text.encode()) for index, text in enumerate(texts))


@given(st.binary(), st.binary(), st.binary())
def test_the_common_beginning_is_found_exactly(start: bytes, one: bytes, other: bytes) -> None:
    """The count is the longest n for which both beginnings are equal."""
    left, right = start + one, start + other
    n = common(left, right)
    assert left[:n] == right[:n]
    assert n == min(len(left), len(right)) or left[n] != right[n]


def test_a_changed_counter_in_the_system_message_is_named_with_its_place() -> None:
    """The sentence shows label, byte and both texts."""
    recent = Recent()
    recent.add("", (Piece("system message", b"x" * 71 + b"billing cch=fa690 end"), *pieces("hello")))
    sentence = recent.difference("", (Piece("system message", b"x" * 71 + b"billing cch=9c1 end"), *pieces("hello")))
    assert sentence == "system message differs at byte 83: `ing cch=fa690 end` → `ing cch=9c1 end`"


def test_the_nearest_conversation_is_the_one_with_the_longest_common_beginning() -> None:
    """Of two conversations the closer one is compared with."""
    recent = Recent()
    recent.add("", pieces("other system", "question"))
    recent.add("", pieces("system", "first question"))
    assert recent.difference("", pieces("system", "second question")).startswith("message 1 differs at byte 0")


def test_another_groups_conversation_is_never_shown() -> None:
    """What group a sent stays out of group b's sentences."""
    recent = Recent()
    recent.add("a", pieces("secret of a"))
    assert recent.difference("b", pieces("question of b")) == ""


def test_an_extended_conversation_whose_cache_is_gone_is_called_that() -> None:
    """Nothing differs: the cache was lost, not the prompt changed."""
    recent = Recent()
    recent.add("", pieces("system", "question"))
    assert "extends an earlier conversation" in recent.difference("", pieces("system", "question", "answer", "next"))


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
def test_no_more_than_forty_characters_of_either_text_are_shown(one: str, other: str) -> None:
    """Excerpts are short whatever the prompts hold."""
    recent = Recent()
    recent.add("", pieces(one))
    sentence = recent.difference("", pieces(other))
    if "differs" in sentence:
        before, after = sentence.split(": `", 1)[1].rstrip("`").split("` → `")
        assert len(before) <= SHOWN
        assert len(after) <= SHOWN


@given(st.lists(st.integers(min_value=1, max_value=BYTES // 2), min_size=1, max_size=100))
def test_memory_stays_within_its_bounds(lengths: list[int]) -> None:
    """Neither the count nor the bytes ever exceed their limits, and the sum is kept right."""
    recent = Recent()
    for index, length in enumerate(lengths):
        recent.add("", (Piece("system", str(index).encode() + bytes(min(length, 1 << 20))),))
    assert len(recent.conversations) <= KEPT
    assert recent.bytes <= BYTES
    assert recent.bytes == sum(len(piece.data) for kept in recent.conversations.values() for piece in kept)


def test_a_difference_in_the_head_is_named_by_its_part() -> None:
    """A client's system message with a counter in it, as it comes out of a body."""
    recent = Recent()
    head = Head(messages=b'[{"role":"system","content":"cch=fa690"}]', kwargs=b'{"enable_thinking":true}')
    other = Head(messages=b'[{"role":"system","content":"cch=9c1"}]', kwargs=b'{"enable_thinking":true}')
    recent.add("", (head_piece(head),))
    sentence = recent.difference("", (head_piece(other),))
    at = head.messages.index(b"fa690")
    assert sentence.startswith(f"system message differs at byte {at}: ")
    assert "cch=9c1" in sentence
