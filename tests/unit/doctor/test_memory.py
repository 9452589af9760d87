"""The last prompts: found by conversation and by id, within their bytes, and by their own group only."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bioproxy.doctor.compare import Prompt
from bioproxy.doctor.memory import Kept, Memory, Visit, nearest
from bioproxy.doctor.nearest import edited, goes_on, like
from bioproxy.prompt import Head, Piece
from bioproxy.templates.dialect_heads import head_piece

Json = Any
LIMIT = 1 << 20
LONG = "so many words that nobody would say all of them by chance, ever, "


def prompt(*said: str, system: str = "", group: str = "", model: str = "") -> Prompt:
    head = head_piece(Head(messages=b'[{"role":"system","content":"%b"}]' % system.encode()))
    turns = (Piece(f"message {number} (user)", text.encode()) for number, text in enumerate(said, 1))
    return Prompt(pieces=(head, *turns), group=group, model=model)


def memory_of(*prompts: Prompt, session: str = "") -> Memory:
    """A memory to which these came, one after the other."""
    memory = Memory()
    for number, one in enumerate(prompts):
        memory.add(one, Visit(client="c", session=session), [f"r{number}"], limit=LIMIT)
    return memory


def near(memory: Memory, later: Prompt, session: str = "") -> str:
    """The id of the prompt that `later` is compared with; "" if it is a new conversation."""
    near = [*memory.alike(later.group, later), *memory.newest(later.group)]
    found = nearest(near, later, session)
    return found.ids[0] if found is not None else ""


def test_the_last_turn_of_the_conversation_is_the_nearest() -> None:
    """Even if its system message changed with each turn."""
    memory = memory_of(prompt("a", system="1"), prompt("z"), prompt("a", "b", system="2"), prompt("z", "y"))
    assert near(memory, prompt("a", "b", "c", system="3")) == "r2"
    assert near(memory, prompt("z", "y", "x")) == "r3"
    assert near(memory, prompt("q")) == ""


def test_a_first_message_with_the_time_in_it() -> None:
    """The rest tells that it is the same conversation."""
    memory = memory_of(prompt(f"{LONG} at 10:31", f"{LONG} one", "yes"))
    assert near(memory, prompt(f"{LONG} at 10:32", f"{LONG} one", "yes", "go on")) == "r0"
    assert near(memory, prompt(f"{LONG} at 10:32", "another answer")) == ""


def test_a_conversation_that_was_shortened() -> None:
    """Some of its messages stand elsewhere."""
    memory = memory_of(prompt("a", "b", f"{LONG} 1", f"{LONG} 2"))
    assert near(memory, prompt("a summary", f"{LONG} 1", f"{LONG} 2")) == "r0"


def test_sessions_tell_conversations_apart_and_never_make_one() -> None:
    """Equal openings of two sessions are two; one session's agent and its helper are two, too."""
    memory = memory_of(prompt("hello", "one"), session="s1")
    assert near(memory, prompt("hello", "one", "two"), "s2") == ""
    assert near(memory, prompt("hello", "one", "two")) == "r0"
    assert near(memory, prompt("find that file"), "s1") == ""
    assert near(memory, prompt("hello", "one", "two"), "s1") == "r0"


def test_a_conversation_with_two_models_at_once() -> None:
    """Each model's own last turn is the nearest; if there is none, that of the other one is."""
    memory = memory_of(prompt("a", model="m"), prompt("a", model="n"))
    assert near(memory, prompt("a", "b", "c", model="m")) == "r0"
    assert near(memory, prompt("a", "b", "c", model="n")) == "r1"
    assert near(memory, prompt("a", "b", "c", model="o")) == "r1"


def test_one_group_never_sees_anothers() -> None:
    """Neither by conversation nor by id; only the operator is told that it was another group's."""
    memory = memory_of(prompt("a", group="one"))
    assert near(memory, prompt("a", "b", group="two")) == ""
    assert memory.find("two", "r0") is None
    assert memory.find("one", "r0") is not None
    assert memory.elsewhere(prompt("a", "b", group="two"))
    assert not memory.elsewhere(prompt("b", "b", group="two"))


def test_a_conversation_of_many_turns_is_kept_once() -> None:
    """Earlier turns have the pieces of the last one, and are found all the same."""
    memory, said = Memory(), [f"{LONG * 40} {number}" for number in range(50)]
    kept: Kept | None = None
    for turn in range(1, 51):
        one = prompt(*[f"{text} " for text in said[:turn]])
        kept = memory.add(one, Visit(client="c"), [f"r{turn}"], limit=LIMIT, earlier=kept)
    assert memory.bytes < 2 * len(LONG * 40) * 50
    first = memory.find("", "r1")
    assert first is not None
    assert goes_on(first.prompt, prompt(*[f"{text} " for text in said]))
    last = memory.find("", "r50")
    assert last is not None
    assert all(one is other for one, other in zip(first.prompt.pieces, last.prompt.pieces, strict=False))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300_000), st.booleans()), max_size=40))
def test_it_never_takes_more_than_its_bytes(arrivals: list[tuple[str, int, bool]]) -> None:
    """The oldest goes first, and what it says about itself is true."""
    memory = Memory()
    last: Kept | None = None
    for number, (group, size, grows) in enumerate(arrivals):
        one = prompt("x" * size, group=group)
        earlier = last if grows and last is not None and last.prompt.group == group else None
        last = memory.add(one, Visit(client=group), [str(number % 7)], limit=LIMIT, earlier=earlier)
        assert memory.bytes == sum(kept.size for kept in memory.kept.values()) <= LIMIT
        grouped = [kept for group in memory.groups.values() for kept in group.values()]
        assert sorted(kept.number for kept in grouped) == list(memory.kept)
        assert all(kept.number in memory.kept for kept in memory.ids.values())
        assert all(kept.number in memory.kept for alike in memory.openings.values() for kept in alike)


def test_nothing_is_kept_with_no_memory() -> None:
    """`doctor.memory: 0`."""
    memory = Memory()
    memory.add(prompt("a"), Visit(client="c"), ["r"], limit=0)
    assert (memory.kept, memory.ids, memory.bytes) == ({}, {}, 0)


def test_a_head_that_is_like_another_ones() -> None:
    """The longest common beginning counts; the same head has no difference to show."""
    rules = "rule " * 100
    memory = memory_of(prompt("a", system=f"{rules}Monday"), prompt("b", system=f"{rules[:300]}x"))
    heads = [kept.prompt for kept in memory.newest("")]
    assert like(heads, prompt("c", system=f"{rules}Tuesday")) is heads[1]
    assert like(heads, prompt("c", system=f"{rules}Monday")) is None
    assert like(heads, prompt("c", system="short")) is None


@given(st.binary(max_size=200), st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=200))
def test_an_edit_leaves_most_of_a_text(start: bytes, one: bytes, other: bytes, end: bytes) -> None:
    """What is edited is told from what is another text, whichever of the two came first."""
    left, right = start + one + end, start + other + end
    assert edited(left, right) == edited(right, left)
    if len(start + end) >= max(64, len(one), len(other)):
        assert edited(left, right)
