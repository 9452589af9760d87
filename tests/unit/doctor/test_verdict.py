"""From a difference and the engine's counts: the cause, and the tokens that were evaluated again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.activity import Cause, Finding, Place
from bioproxy.doctor.compare import Difference, Prompt, compare
from bioproxy.doctor.verdict import LEAST, Evidence, judge, usual
from bioproxy.prompt import Piece

Json = Any
EARLIER = Prompt(pieces=(Piece("head", bytes(400)), Piece("message 1 (user)", bytes(600))), tokens=1000)
GROWN = Difference(cause="grown", shared=1000, size=1200)


def system(**more: Json) -> Difference:
    """The system message changed after a tenth of the prompt; nearly all of the rest was there before."""
    known: Json = {"cause": "system_changed", "place": Place("system message"), "shared": 100, "repeated": 890}
    return Difference(**{"changed": ("system_changed",), "size": 1000, **known, **more})


def found(difference: Difference | None = GROWN, *, shared: int | None = None, **evidence: Json) -> Finding:
    known: Json = {"cached": 0, "evaluated": 1000, "token": 0.01}
    earlier = None if difference is None else EARLIER
    return judge(difference, earlier, Evidence(**known | evidence), shared=shared)


def test_the_first_prompt_of_a_conversation_has_lost_nothing() -> None:
    """All of it is new."""
    assert found(None) == Finding(cause="first_time")


def test_a_new_conversation_that_begins_almost_as_another_one() -> None:
    """Its head's first difference is shown; it is a new conversation all the same."""
    finding = judge(system(), None, Evidence(cached=0, evaluated=1000))
    assert (finding.cause, finding.tokens, finding.place) == ("first_time", 0, Place("system message"))
    assert finding.note == "compared with another conversation"


def test_a_conversation_that_goes_on_evaluates_what_is_new() -> None:
    """The engine's count of the earlier prompt came from the cache, or all but a chat template's seam."""
    assert found(cached=1000, evaluated=200).cause == "grown"
    assert found(cached=1000 - LEAST + 1, evaluated=200).tokens == 0


def test_what_changed_costs_what_stood_after_it() -> None:
    """Tokens by their share of the bytes: exact if the engine's tokenizer was asked for the place."""
    finding = found(system(), cached=100, evaluated=900)
    assert (finding.cause, finding.tokens, finding.seconds, finding.shared) == ("system_changed", 890, 8.9, 100)
    assert not finding.exact
    assert found(system(), cached=100, evaluated=900, shared=100).exact


def test_text_that_is_new_is_no_loss() -> None:
    """A message that was edited, and nothing after it."""
    finding = found(system(cause="message_changed", repeated=0), cached=100, evaluated=900)
    assert (finding.cause, finding.tokens) == ("message_changed", 0)


@pytest.mark.parametrize(
    ("evidence", "cause", "by", "note"),
    [
        ({"by": "anna"}, "evicted", "anna", ""),
        ({"by": "anna", "why": "others run"}, "evicted", "anna", "others run"),
        ({"restarted": True, "by": "anna", "why": "the disk is full"}, "not_saved", "", "the disk is full"),
        ({"held": 900, "family": "recurrent"}, "not_reused", "", "recurrent"),
        ({"failed": True, "why": "x"}, "not_reused", "", "its snapshot could not be restored: x"),
    ],
)
def test_what_was_gone(evidence: Json, cause: Cause, by: str, note: str) -> None:
    """Nothing changed, and the engine had less than it had had: who is to blame, as the keeper knows it."""
    finding = found(cached=10, evaluated=1190, **evidence)
    assert (finding.cause, finding.tokens, finding.by, finding.note) == (cause, 990, by, note)


def test_of_two_losses_the_larger_one_is_the_cause() -> None:
    """A message near the end changed, and the cache was gone, too; both are counted."""
    late = system(cause="message_changed", shared=900, repeated=50)
    finding = found(late, cached=0, evaluated=1000, by="anna")
    assert (finding.cause, finding.tokens) == ("evicted", 950)
    assert found(late, cached=880, evaluated=120).cause == "message_changed"


def test_an_estimate_is_no_proof() -> None:
    """By its bytes a place may be a tenth of the prompt off; the engine's tokenizer is believed to the token."""
    difference = system(shared=500, repeated=400)
    assert found(difference, cached=350, evaluated=650).cause == "system_changed"
    exact = found(difference, cached=350, evaluated=650, shared=500)
    assert exact.tokens > found(difference, cached=350, evaluated=650).tokens - 150


def test_the_engines_count_tells_where_prompts_part() -> None:
    """If the place's share of the bytes is about as much; else that share is all there is."""
    assert found(system(shared=500), cached=450, evaluated=550).shared == 450
    assert found(system(shared=500), cached=10, evaluated=990).shared == 500


def test_another_model_costs_everything_that_both_prompts_have() -> None:
    """Its cache was never there."""
    finding = found(system(cause="model_changed", shared=600, repeated=300, place=None), cached=0, evaluated=1000)
    assert (finding.cause, finding.tokens) == ("model_changed", 900)


def test_arguments_that_turn_out_not_to_matter() -> None:
    """The engine used its cache all the same."""
    difference = system(
        cause="arguments_changed", changed=("arguments_changed",), shared=990, repeated=0, arguments=("x",), place=None
    )
    finding = found(difference, cached=990, evaluated=10)
    assert (finding.cause, finding.tokens, finding.fields) == ("field_changed", 0, ("x",))
    assert found(difference, cached=10, evaluated=990).cause == "arguments_changed"


def test_what_cannot_be_compared_says_so() -> None:
    """With the reason."""
    assert found(Difference(cause="not_comparable", note="none")) == Finding(cause="not_comparable", note="none")


@given(
    said=st.lists(st.sampled_from(("a", "b" * 90)), min_size=1, max_size=3),
    earlier=st.integers(0, 4),
    changed=st.sampled_from(("", "", "", "model", "engine", "day", "arguments", "aside", "head")),
    tokens=st.tuples(st.sampled_from((0, 100, 900)), st.sampled_from((50, 100, 1000))),
    missing=st.sampled_from((0, LEAST - 1, LEAST, 400)),
)
def test_the_usual_prompt_is_told_at_a_glance(
    said: list[str], earlier: int, changed: str, tokens: tuple[int, int], missing: int
) -> None:
    """What is said at a glance is what the long way says, and nothing is said of a prompt that lost something."""
    turns = [Piece("head", b"h"), *(Piece("message (user)", text.encode()) for text in said)]
    before = Prompt(pieces=tuple(turns[: earlier + 1]), tokens=tokens[0])
    fields: Json = {"arguments": {"a": b"1"}, "aside": {"a": b"1"}}
    more: Json = {} if changed in {"", "head"} else {changed: fields.get(changed, "other")}
    pieces = (Piece("head", b"other"), *turns[1:]) if changed == "head" else tuple(turns)
    later = Prompt(pieces=pieces, tokens=tokens[1], **more)
    cached = max(0, tokens[1] - missing)
    told = usual(before, later, cached=cached)
    evidence = Evidence(cached=cached, evaluated=tokens[1] - cached, token=0.01, held=tokens[1], by="somebody")
    if told is not None:
        assert told == judge(compare(before, later), before, evidence)
    elif not changed and tokens[0]:
        assert min(tokens) - cached >= LEAST
    assert usual(before, later, cached=None) is None
