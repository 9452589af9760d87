"""A prompt up to a breakpoint, as the engine is asked to render it: in the chat dialect, as llama-server translates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.front.caching.beginning import bodies
from bioproxy.front.caching.fields import LAST, Form
from bioproxy.prompt import Head
from bioproxy.templates.bodies import Body

Json = Any
HELLO: Json = {"role": "user", "content": "hello"}
IMAGE: Json = {"type": "image", "source": {"data": "A"}}


def rendered(form: Form, messages: Json, *, item: int = -1, part: int = LAST, first: int = 0) -> Json:
    """The messages of the first chat, without the word that tells it from the second one; None if it is not known."""
    name = "input" if form == "responses" else "messages"
    fields = Body(json.dumps({name: messages}).encode()).fields or {}
    place = item if item >= 0 else len(messages) - 1
    pair = bodies(form, fields, Head(messages=b'[{"role":"system","content":"s"}]'), first=first, item=place, part=part)
    if pair is None:
        return None
    one, other = (json.loads(body)["messages"] for body in pair)
    assert one[0] == other[0] == {"role": "system", "content": "s"}
    assert one[:-1] == other[:-1]
    found = json.dumps(one[1:])
    assert found.count("Compare this.") == 1
    return json.loads(found.replace("Compare this.", "|"))


def test_a_text_ends_with_the_word() -> None:
    """What follows the breakpoint is left out: later parts, later messages."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    row = [HELLO, {"role": "user", "content": parts}, HELLO]
    assert rendered("chat", row, item=1, part=0) == [
        HELLO,
        {"role": "user", "content": [{"type": "text", "text": "a|"}]},
    ]
    assert rendered("chat", row, item=0) == [{"role": "user", "content": "hello|"}]


def test_what_is_in_the_head_is_not_said_twice() -> None:
    """Messages before the first user message stand in the head."""
    assert rendered("chat", [{"role": "system", "content": "s"}, HELLO], first=1) == [
        {"role": "user", "content": "hello|"}
    ]


def test_anthropics_blocks() -> None:
    """Texts and calls are one message, results of tools are messages of their own after it."""
    call = {"type": "tool_use", "id": "1", "name": "t", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "r"}]}
    row = [
        HELLO,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}, call]},
        {"role": "user", "content": [result]},
    ]
    function = {"name": "t", "arguments": '{"a":1}'}
    assert rendered("anthropic", row) == [
        HELLO,
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "b"}],
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
            "reasoning_content": "hm",
        },
        {"role": "tool", "tool_call_id": "1", "content": "r|"},
    ]


def test_a_responses_input() -> None:
    """Its parts become those of a chat."""
    row = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]}]
    assert rendered("responses", row) == [{"role": "user", "content": [{"type": "text", "text": "a|"}]}]


@pytest.mark.parametrize(
    ("form", "messages"),
    [
        ("anthropic", [{"role": "user", "content": [IMAGE]}]),
        ("anthropic", [{"role": "user", "content": [IMAGE]}, HELLO]),
        ("anthropic", [{"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "t", "input": {}}]}]),
        ("anthropic", [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [IMAGE]}]}]),
        ("anthropic", [{"role": "user", "content": [{"type": "tool_result", "content": "no id"}]}]),
        ("chat", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("chat", [{"role": "assistant", "content": None, "tool_calls": [{}]}]),
        ("chat", [{"role": "user", "content": ""}]),
        ("chat", [{"role": "user", "content": 5}]),
        ("responses", [{"type": "function_call", "name": "t"}, {"role": "user", "content": "a"}]),
    ],
)
def test_what_is_not_known_is_not_guessed(form: Form, messages: Json) -> None:
    """Images, calls at the end, results without a text, items of other kinds."""
    assert rendered(form, messages) is None


def test_a_result_before_a_text_in_one_message() -> None:
    """llama-server puts the text first, so the prompt does not end at the result."""
    result = {"type": "tool_result", "tool_use_id": "1", "content": "r"}
    row: Json = [{"role": "user", "content": [result, {"type": "text", "text": "a"}]}]
    assert rendered("anthropic", row, part=0) is None
    text, tool = {"role": "user", "content": [row[0]["content"][1]]}, {"role": "tool", "tool_call_id": "1"}
    assert rendered("anthropic", row, part=1) == [text, {**tool, "content": "r|"}]  # where the message ends
