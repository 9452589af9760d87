"""Two prompts as clients send them: what changed, and at which character of the client's own text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioproxy.doctor.compare import Difference, Prompt, arguments_of, aside_of, compare
from bioproxy.doctor.units import SAME, SHOWN
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import expand
from bioproxy.templates.parse import Filled

Json = Any
SYSTEM = {"role": "system", "content": "You are brief. Today is Monday. Be kind."}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": {"type": "object"}}}
    for name in ("read", "write", "look")
]


class Texts:
    """A catalogue of one template, as text with one place for the message."""

    def __init__(self, text: str = "", version: str = "1") -> None:
        self.filled = Filled("@code", version, (text, ""))

    def match(self, text: str) -> tuple[str, str] | None:
        return ("@code", text[6:]) if text.startswith("@code ") else None

    def current(self, prefix: str) -> Filled:
        assert prefix == "@code"
        return self.filled


def prompt(body: Json, *, dialect: Dialect = "chat", texts: Texts | None = None, **more: Json) -> Prompt:
    """A prompt as the doctor gets it of a body."""
    opened = Body(json.dumps(body).encode())
    found = expand(opened, dialect=dialect, catalogue=texts or Texts(), pins=None, scope=b"")
    known: Json = {"pieces": found.pieces, "sent": found.sent, "prefix": found.prefix, "version": found.version}
    return Prompt(
        arguments=arguments_of(found.head), aside=aside_of(opened.fields or {}), dialect=dialect, **known | more
    )


def chat(*said: str, system: Json = SYSTEM, **more: Json) -> Json:
    """A conversation in which user and assistant take turns."""
    roles = ("user", "assistant")
    turns = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
    return {"messages": [system, *turns] if system else turns, **more}


def found(earlier: Json, later: Json, dialect: Dialect = "chat", **more: Json) -> Difference:
    return compare(prompt(earlier, dialect=dialect), prompt(later, dialect=dialect), **more)


def test_a_conversation_that_goes_on_has_grown() -> None:
    """All of the earlier prompt is shared, nothing is repeated after it."""
    difference = found(chat("hello"), chat("hello", "hi", "what now?"))
    assert (difference.cause, difference.changed, difference.place) == ("grown", (), None)
    assert difference.shared == prompt(chat("hello")).size
    assert difference.repeated == 0


@pytest.mark.parametrize("later", [chat("hello", "hi", "why?"), chat("hello")])
def test_a_prompt_that_is_sent_again_or_cut_short_has_grown(later: Json) -> None:
    """A retry, or a conversation that somebody took back: there is nothing to evaluate."""
    assert found(chat("hello", "hi", "why?"), later).cause == "grown"


def test_a_date_in_the_system_message() -> None:
    """The place is counted in the client's text, and what follows it was there before."""
    later = {"role": "system", "content": SYSTEM["content"].replace("Monday", "Tuesday")}
    difference = found(chat("hello", "hi", "why?"), chat("hello", "hi", "why?", system=later))
    place = difference.place
    assert difference.cause == "system_changed"
    assert place is not None
    assert (place.label, place.path, place.at) == ("system message", "content", 24)
    assert (place.same, place.before, place.now) == ("brief. Today is ", "Monday. Be kind.", "Tuesday. Be kind.")
    assert difference.repeated > sum(map(len, ("day. Be kind.", "hello", "hi", "why?")))


def test_escapes_and_letters_count_as_the_client_counts_them() -> None:
    """Neither JSON's escapes nor UTF-8's bytes move a place."""
    text = 'Zeile "eins"\n\tübermäßig 🙂 '
    one, other = ({"role": "system", "content": f"{text}{word}"} for word in ("alt", "neu"))
    place = found(chat("a", system=one), chat("a", system=other)).place
    assert place is not None
    assert (place.at, place.before, place.now) == (len(text), "alt", "neu")
    place = found(chat(f"{text}ä"), chat(f"{text}ö")).place  # one byte of two is equal
    assert place is not None
    assert (place.label, place.path, place.at, place.now) == ("message 1 (user)", "content", len(text), "ö")


def test_a_message_in_the_middle_that_was_edited() -> None:
    """Its number, and what comes after it as repeated."""
    difference = found(
        chat("one", "two", "three", "four", "five"), chat("one", "two", "thirty", "four", "five", "six", "seven")
    )
    place = difference.place
    assert difference.cause == "message_changed"
    assert place is not None
    assert (place.label, place.at, place.same) == ("message 3 (user)", 2, "th")
    assert not difference.compacted
    assert len("fourfive") < difference.repeated < len("assistantfouruserfivethree") + 20


def test_a_conversation_that_the_client_shortened() -> None:
    """Fewer messages, from the first difference on others."""
    difference = found(chat("one", "two", "three", "four", "five"), chat("A summary of all.", "five"))
    assert (difference.cause, difference.compacted) == ("message_changed", True)


@pytest.mark.parametrize(
    ("later", "note"),
    [
        ([TOOLS[2], TOOLS[0], TOOLS[1]], "the same tools in another order"),
        ([*TOOLS, {"type": "function", "function": {"name": "more"}}], "tools, 1 new: more"),
        (TOOLS[:2], "tools, 1 gone: look"),
        (None, "tools, 3 gone: read, write, look"),
        (
            [*TOOLS[:2], {"function": TOOLS[2]["function"], "type": "function"}],
            "the keys of tool look stand in another order",
        ),
    ],
)
def test_tools_that_changed(later: Json, note: str) -> None:
    """In another order, more, fewer, none, written otherwise."""
    difference = found(chat("hello", tools=TOOLS), chat("hello", tools=later))
    assert (difference.cause, difference.note) == ("tools_changed", note)


def test_a_word_within_a_tool() -> None:
    """Label and path lead to it."""
    tool = json.loads(json.dumps(TOOLS[1]))
    tool["function"]["description"] = "Does much."
    place = found(chat("hello", tools=TOOLS), chat("hello", tools=[TOOLS[0], tool, TOOLS[2]])).place
    assert place is not None
    assert (place.label, place.path, place.at) == ('tool "write"', "function.description", 5)
    assert (place.before, place.now) == ("write.", "much.")


def test_system_and_tools_at_once() -> None:
    """Both are named, the system message first."""
    other = {"role": "system", "content": "Other rules."}
    difference = found(chat("a", tools=TOOLS), chat("a", tools=TOOLS[1:], system=other))
    assert difference.changed == ("system_changed", "tools_changed")


def test_all_that_changed_is_named() -> None:
    """Whoever needs another order than that of the normal form has all of it."""
    other = {"role": "system", "content": "Other rules."}
    difference = found(chat("a", "b", "c", tools=TOOLS), chat("a", "d", "c", tools=TOOLS[1:], system=other))
    assert difference.changed == ("system_changed", "tools_changed", "message_changed")


def test_a_greeting_before_the_first_user_message() -> None:
    """It belongs to the head, whoever said it: it came, went or changed, and what follows did not."""
    greeting = {"role": "assistant", "content": "Good morning."}
    plain, greeted = chat("hello", "hi", "why?"), chat("hello", "hi", "why?")
    greeted["messages"].insert(1, greeting)
    for earlier, later in ((plain, greeted), (greeted, plain)):
        difference = found(earlier, later)
        assert difference.cause == "message_changed"
        assert difference.repeated >= len("hellohiwhy?")
    evening = chat("hello", "hi", "why?")
    evening["messages"].insert(1, {"role": "assistant", "content": "Good evening."})
    place = found(greeted, evening).place
    assert place is not None
    assert (place.label, place.path, place.at) == ("opening message", "content", 5)


def test_blanks_in_tools_and_marks_for_a_cache_are_no_change() -> None:
    """Nothing of it stands in the prompt."""
    body = json.dumps(chat("hello", tools=TOOLS))
    spaced = Body(body.replace('"type": "object"', '"type" :\n"object"').encode())
    pieces = expand(spaced, dialect="chat", catalogue=Texts(), pins=None, scope=b"").pieces
    assert compare(prompt(chat("hello", tools=TOOLS)), Prompt(pieces=pieces)).cause == "grown"
    part = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    assert found(chat("hello"), {"messages": [SYSTEM, {"role": "user", "content": [part]}]}).cause == "grown"


def test_fields_that_do_not_shape_the_prompt_are_named() -> None:
    """They cost nothing; how the answer comes is not even named."""
    difference = found(chat("a", temperature=0, stream=True), chat("a", temperature=1, seed=7, prompt_cache_key="k"))
    assert (difference.cause, difference.fields) == ("field_changed", ("prompt_cache_key", "seed", "temperature"))


def test_template_arguments() -> None:
    """They count, unless the engine is known not to print them."""
    earlier, later = chat("a", reasoning_effort="low"), chat("a", reasoning_effort="high")
    difference = found(earlier, later)
    assert (difference.cause, difference.arguments) == ("arguments_changed", ("reasoning_effort",))
    difference = found(earlier, later, shapes=lambda _name, _value: False)
    assert (difference.cause, difference.fields) == ("field_changed", ("reasoning_effort",))


def test_what_is_no_matter_of_the_text() -> None:
    """Model, launch arguments, group, a printed date: each has its cause, and the first decides."""
    one = prompt(chat("a"), model="m", engine="f", group="g", day="d")
    assert (
        compare(one, prompt(chat("a"), model="n", engine="e", group="g", day="d")).note == "the earlier one went to m"
    )
    for change, cause in (
        ({"model": "n"}, "model_changed"),
        ({"engine": "e"}, "model_changed"),
        ({"group": "h"}, "group_changed"),
        ({"day": "e"}, "arguments_changed"),
    ):
        known: Json = {"model": "m", "engine": "f", "group": "g", "day": "d"} | change
        assert compare(one, prompt(chat("b"), **known)).changed == (cause, "message_changed")
    assert found(chat("a"), chat("a", lora=[{"id": 0, "scale": 1}])).cause == "model_changed"


def test_a_template_that_was_edited() -> None:
    """The client's words are the same; its own change is told from that."""
    body = chat("@code why?", system=None)
    old, new = Texts("The old text. ", "1"), Texts("The new text. ", "2")
    difference = compare(prompt(body, texts=old), prompt(body, texts=new))
    assert (difference.cause, difference.note) == ("template_edited", "template @code")
    assert difference.place is not None
    assert (difference.place.at, difference.place.before[:3]) == (4, "old")
    other = compare(prompt(body, texts=old), prompt(chat("@code who?", system=None), texts=old))
    assert other.cause == "message_changed"
    assert other.place is not None
    assert (other.place.at, other.place.same, other.place.now) == (8, "@code wh", "o?")


def test_pictures_calls_and_results() -> None:
    """Parts that are no text, and fields beside the content, are walked into as JSON."""
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    other = {"type": "image_url", "image_url": {"url": "https://example.org/dog.png"}}
    look = {"type": "text", "text": "look"}
    bodies = [{"messages": [{"role": "user", "content": [look, one]}]} for one in (picture, other)]
    place = found(bodies[0], bodies[1]).place
    assert place is not None
    assert (place.path, place.at, place.now) == ("content[1].image_url.url", 20, "dog.png")
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": '{"a": 1}'}}]}
    again = json.loads(json.dumps(call))
    again["tool_calls"][0]["function"]["arguments"] = '{"a": 2}'
    user = {"role": "user", "content": "a"}
    place = found({"messages": [user, call]}, {"messages": [user, again]}).place
    assert place is not None
    assert (place.label, place.path, place.at) == (
        "message 2 (assistant)", "tool_calls[0].function.arguments", 6,
    )  # fmt: skip


def test_twenty_megabytes_with_a_change_in_the_middle() -> None:
    """Found by halving, and no more of it is decoded than what stands before."""
    large = "0123456789 wörds\n" * 1_200_000
    half = len(large) // 2
    difference = found(chat(large, "so", "go on"), chat(f"{large[:half]}#{large[half:]}", "so", "go on"))
    assert difference.place is not None
    assert (difference.place.at, difference.place.now[0]) == (half, "#")
    assert difference.shared + difference.repeated >= difference.size - 1 - 100


def test_a_large_picture_is_named_by_its_digest() -> None:
    """Another one is another message; none of it is shown."""
    bodies = [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": letter * 5000}}]}]}
        for letter in "ab"
    ]
    difference = found(bodies[0], bodies[1])
    assert difference.cause == "message_changed"
    assert difference.place is not None
    assert len(difference.place.now) <= SHOWN


@pytest.mark.parametrize(("dialect", "key"), [("anthropic", "system"), ("responses", "instructions")])
def test_the_other_dialects(dialect: Dialect, key: str) -> None:
    """Their system prompts are system messages, and places in them are the client's."""
    turns = "input" if dialect == "responses" else "messages"
    one, other = ({key: f"Rules of {day}.", turns: [{"role": "user", "content": "a"}]} for day in ("today", "now"))
    difference = found(one, other, dialect)
    assert difference.cause == "system_changed"
    assert difference.place is not None
    assert (difference.place.at, difference.place.now) == (9, "now.")


def test_completions_grow_within_their_text() -> None:
    """A longer prompt goes on; another one has its place."""
    assert found({"prompt": "one two"}, {"prompt": "one two three"}, "completion").cause == "grown"
    difference = found({"prompt": "one two"}, {"prompt": "one to"}, "completion")
    assert difference.cause == "message_changed"
    assert difference.place is not None
    assert (difference.place.label, difference.place.at) == ("prompt", 5)


def test_a_completion_beside_a_chat() -> None:
    """They have nothing in common, and it says so in some way."""
    one, other = prompt({"prompt": "hello"}, dialect="completion"), prompt(chat("hello"))
    for earlier, later in ((one, other), (other, one)):
        assert compare(earlier, later).cause in {"system_changed", "message_changed"}


def test_what_has_no_messages_is_not_comparable() -> None:
    """Bodies that cannot be read, and those that shall reuse nothing."""
    assert compare(Prompt(), prompt(chat("a"))).cause == "not_comparable"
    assert found(chat("a"), chat("a", cache_prompt=False)).cause == "not_comparable"


texts = st.text(st.characters(codec="utf-8"), max_size=60)


@given(texts, texts, texts)
def test_the_place_is_the_first_character_that_differs(start: str, one: str, other: str) -> None:
    """In a message and in a system message alike, with forty characters at most."""
    left, right = start + one, start + other
    at = next(
        (n for n, pair in enumerate(zip(left, right, strict=False)) if pair[0] != pair[1]), min(len(left), len(right))
    )
    for bodies in (
        (chat(left), chat(right)),
        (chat("a", system={"role": "system", "content": left}), chat("a", system={"role": "system", "content": right})),
    ):
        difference = found(*bodies)
        if left == right:
            assert difference.cause == "grown"
            continue
        place = difference.place
        assert place is not None
        assert (place.at, place.before, place.now) == (at, left[at : at + SHOWN], right[at : at + SHOWN])
        assert place.same == right[max(0, at - SAME) : at]


@given(st.lists(texts, min_size=1, max_size=6), st.lists(texts, min_size=1, max_size=6))
def test_a_comparison_is_right_about_the_messages(one: Sequence[str], other: Sequence[str]) -> None:
    """Grown exactly if one conversation begins with the other; else the first message that differs is named."""
    difference = found(chat(*one), chat(*other))
    number = next((n for n, pair in enumerate(zip(one, other, strict=False), 1) if pair[0] != pair[1]), 0)
    assert (difference.cause == "grown") == (not number)
    if number:
        assert difference.place is not None
        assert difference.place.label.startswith(f"message {number} ")
    assert 0 <= difference.shared + difference.repeated <= difference.size


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=6
    )
)
def test_whatever_stands_in_a_tool_is_compared(value: Json) -> None:
    """No value of a tool's field makes it fail."""
    tool = {"type": "function", "function": {"name": "x", "parameters": value}}
    difference = found(chat("a", tools=TOOLS), chat("a", tools=[tool, "odd", 7]))
    assert difference.cause == "tools_changed"
