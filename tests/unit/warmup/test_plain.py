"""Which heads without a prefix count, for whom, and which of them are warmed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import chain
from bioproxy.prompt import Head, Piece
from bioproxy.templates.dialect_heads import head_piece
from bioproxy.warmup import plain as module
from bioproxy.warmup.plain import HALF_LIFE, KEPT, SHORTEST, Plain, PlainHeads, worth


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def head(name: str, size: int = 2 * SHORTEST) -> Head:
    """A head of about `size` bytes."""
    words = f"{name}: {'word ' * (size // 5)}"
    return Head(messages=msgspec.json.encode([{"role": "system", "content": words}]))


def make(limit: int = 4) -> PlainHeads:
    return PlainHeads(limit=lambda: limit, clock=Clock())


def began(heads: PlainHeads, whose: Head, *turns: str, group: str = "") -> bool:
    """A request of a conversation of these messages, user and assistant in turn."""
    pieces = [head_piece(whose), *(Piece("message", turn.encode()) for turn in turns)]
    return heads.began(group, chain("", pieces), pieces, whose)


def names(heads: PlainHeads) -> list[str]:
    """The first words of what shall be warm."""
    return [msgspec.json.decode(one.head.messages)[0]["content"].partition(":")[0] for one in heads.wanted()]


def test_a_head_counts_once_two_conversations_began_with_it() -> None:
    """The turns of one conversation are one; a second one makes the head count, and a third changes nothing."""
    heads = make()
    turns: Sequence[str] = ("Hello?", "Yes.", "And now?")
    assert not any(began(heads, head("agent"), *turns[: count + 1]) for count in range(3))
    assert names(heads) == []
    assert began(heads, head("agent"), "Something else")
    assert not began(heads, head("agent"), "A third")
    assert names(heads) == ["agent"]


def test_equal_openings_are_told_apart_by_their_second_turns() -> None:
    """Two sessions begin with the same words and go on differently."""
    heads = make()
    assert not began(heads, head("agent"), "Look around.")
    assert not began(heads, head("agent"), "Look around.", "Done.", "Mend it.")
    assert not began(heads, head("agent"), "Look around.")
    assert began(heads, head("agent"), "Look around.", "Done.", "Write a test.")


def test_a_head_is_its_groups() -> None:
    """One conversation of each of two groups is not two of one."""
    heads = make()
    for group in ("red", "blue"):
        assert not began(heads, head("agent"), f"of {group}", group=group)
    assert began(heads, head("agent"), "another", group="red")
    assert [one.group for one in heads.wanted()] == ["red"]
    assert began(heads, head("agent"), "another", group="blue")
    assert len({one.name for one in heads.wanted()}) == 2


def test_until_it_counts_no_text_is_kept() -> None:
    """What comes once may be a person's document: only digests of it stay."""
    heads = make()
    began(heads, head("a private letter"), "Is it polite?")
    assert not heads.kept
    assert b"letter" not in msgspec.msgpack.encode(list(heads.watched.values()))


@pytest.mark.parametrize("size", [SHORTEST - 100, module.LARGEST + 1])
def test_heads_of_other_lengths_do_not_count(size: int) -> None:
    """A short one is read at once, and one of megabytes is not kept in memory."""
    heads = make()
    for question in ("one", "two", "three"):
        assert not began(heads, head("agent", size), question)


def test_options_that_shape_the_prompt_make_another_head() -> None:
    """They stand in no piece, so the chain does not tell them apart."""
    heads = make()
    fast, slow = (msgspec.structs.replace(head("agent"), kwargs=b'{"think":%s}' % word) for word in (b"false", b"true"))
    assert not began(heads, fast, "one")
    assert not began(heads, slow, "two")
    assert began(heads, slow, "three")


def test_the_most_valuable_are_warmed() -> None:
    """Of each group as many as the limit says: the longest, most used, last used."""
    heads = make(limit=2)
    for name, size, sessions in (("short", 2000, 2), ("long", 9000, 2), ("often", 4000, 9)):
        for session in range(sessions):
            began(heads, head(name, size), f"session {session}")
    for session in range(2):
        began(heads, head("theirs", 3000), f"session {session}", group="other")
    assert names(heads) == ["often", "long", "theirs"]


def test_a_limit_of_zero_keeps_nothing() -> None:
    """`warmup.plain_heads: 0`."""
    heads = make(limit=0)
    assert not any(began(heads, head("agent"), question) for question in ("one", "two", "three"))
    assert not heads.kept


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a group's heads and of all heads together those go that are worth least; digests are bounded, too."""
    heads = make(limit=KEPT)
    for number in range(KEPT + 3):
        for session in range(3 if number else 9):
            began(heads, head(f"{number}"), f"session {session}")
    assert len(heads.kept) == KEPT
    assert "0" in names(heads)
    monkeypatch.setattr(module, "MOST", 3 * SHORTEST)
    monkeypatch.setattr(module, "WATCHED", 2)
    heads.watched.clear()
    for number in range(9):
        began(heads, head(f"new {number}"), "one")
    assert len(heads.watched) == 2
    assert began(heads, head("new 8"), "two")
    assert len(heads.kept) == 1


def test_what_was_kept_is_taken_in_again() -> None:
    """After a restart a request finds its head by the same digest, and another one is forgotten with time."""
    heads, later = make(), make()
    for name in ("agent", "old"):
        for question in ("one", "two"):
            began(heads, head(name), question)
    later.take_in([Plain(group=one.group, head=one.head, used=one.used) for one in heads.kept.values()])
    assert sorted(names(later)) == ["agent", "old"]
    clock = later.clock()
    assert not began(later, head("agent"), "three")
    assert later.forget(clock)
    assert names(later) == ["agent"]
    assert not later.forget(clock)


@given(st.integers(1, 1 << 20), st.integers(2, 1000), st.floats(0, 1e8), st.floats(0, 1e8))
def test_worth_grows_with_length_and_use_and_fades(size: int, sessions: int, age: float, more: float) -> None:
    """Longer, more often and later are never worth less; a week without use costs half."""
    value = worth(size, sessions, age)
    assert worth(size + 1, sessions, age) >= value <= worth(size, sessions + 1, age)
    assert worth(size, sessions, age + more) <= value
    assert worth(size, sessions, HALF_LIFE) == size * sessions / 2
