"""Which conversations change their head at each turn, and what of it stays."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import chain
from bioproxy.prompt import Head, Piece
from bioproxy.templates.dialect_heads import head_piece
from bioproxy.warmup import unstable as module
from bioproxy.warmup.unstable import CHANGES, Stable, Unstable

RULES = "".join(f"Rule {number}: nobody leaves before {number % 24}.\n" for number in range(200))


def head(clock: str = "", rules: str = RULES) -> Head:
    """Rules, then what changes."""
    return Head(messages=msgspec.json.encode([{"role": "system", "content": f"{rules}{clock}\nAnswer in English."}]))


class Client:
    """A conversation; `ask` sends its next turn after a head."""

    def __init__(self, known: Unstable, *, first: str = "Hello?", group: str = "") -> None:
        self.known = known
        self.group = group
        self.messages = [first]

    def ask(self, whose: Head, *, again: bool = False) -> Stable | None:
        """The next turn, or (`again`) the same one."""
        if not again and len(self.messages) > 1:
            self.messages += [f"And {len(self.messages)}?"]
        sent = self.messages[:-1] if again and self.messages[-1] == "An answer." else self.messages
        pieces = [head_piece(whose), *(Piece("message", one.encode()) for one in sent)]
        if not again:
            self.messages.append("An answer.")
        return self.known.look(self.group, chain("", pieces), pieces, whose)


def test_a_head_that_changes_at_each_turn_is_unstable_from_the_third_on() -> None:
    """And what its turns share ends before the line that changes."""
    talk = Client(Unstable())
    found = [talk.ask(head(f"10:{minute}")) for minute in range(5)]
    assert found[:CHANGES] == [None] * CHANGES
    for stable in found[CHANGES:]:
        assert stable is not None
        assert stable.cut is not None
        assert stable.head.messages != stable.other.messages
        assert 0 < len(head_piece(head()).data) - stable.cut.offset < 3000
        assert stable.cut.offset <= head_piece(head()).data.index(b"\\nAnswer")


def test_a_head_that_stays_is_stable() -> None:
    """However long the conversation is, and whoever asks in between with another head."""
    known = Unstable()
    talk = Client(known)
    for turn in range(9):
        assert talk.ask(head()) is None
        aside = Client(known)
        aside.messages = [*talk.messages[: 1 + turn % 3]]
        assert aside.ask(head(rules="Find a title.")) is None


def test_a_new_conversation_is_expected_to_change_too() -> None:
    """If it begins in the same way, from its first turn; of another group nothing is known."""
    known = Unstable()
    talk = Client(known)
    for minute in range(4):
        talk.ask(head(f"10:{minute}"))
    assert Client(known, first="Something else").ask(head("11:07")) is not None
    assert Client(known, first="Something else").ask(head("11:07", rules="Other rules. " * 99)) is None
    assert Client(known, first="Something else", group="other").ask(head("11:07")) is None


def test_as_soon_as_a_head_stays_everything_counts_again() -> None:
    """A client that was mended, or a clock that only shows the day. The same request again says nothing."""
    talk = Client(Unstable())
    for minute in range(4):
        talk.ask(head(f"10:{minute}"))
    assert talk.ask(head("10:3"), again=True) is not None
    assert talk.ask(head("10:3")) is None
    assert talk.ask(head("10:4")) is None


def test_what_changes_at_the_very_beginning_leaves_nothing() -> None:
    """Then no cut is shared."""
    talk = Client(Unstable())
    found = [talk.ask(Head(messages=b'[{"role":"system","content":"It is 10:%d"}]' % minute)) for minute in range(4)]
    assert found[-1] is not None
    assert found[-1].cut is None


def test_a_document_that_came_once_is_not_kept() -> None:
    """Only digests are, until the head of a conversation has changed."""
    known = Unstable()
    Client(known).ask(head("a private letter"))
    (branches,) = known.talks.values()
    assert [branch.head for branch in branches] == [None]


def test_what_is_remembered_is_bounded() -> None:
    """Conversations, their heads, and what was learnt."""
    known = Unstable()
    for number in range(module.TALKS + 5):
        Client(known, first=f"{number}").ask(head())
    assert len(known.talks) == module.TALKS
    talk = Client(known)
    for minute in range(module.LEARNT + 9):
        talk.messages = ["Hello?"] * (minute + 1)
        talk.ask(Head(messages=b'[{"role":"system","content":"It is 10:%d"}]' % minute), again=True)
    assert len(known.learnt) <= module.LEARNT
    assert all(len(branches) <= module.BRANCHES for branches in known.talks.values())


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12))
def test_after_a_head_that_stayed_nothing_is_unstable(clocks: list[str]) -> None:
    """Whatever came before: two turns with one head are found again."""
    talk = Client(Unstable())
    for clock in clocks:
        talk.ask(head(clock))
    talk.ask(head("stays"))
    assert talk.ask(head("stays")) is None
    assert talk.ask(head("stays")) is None
