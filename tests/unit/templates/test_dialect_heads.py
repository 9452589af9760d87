"""Heads in the chat dialect, whatever the client speaks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bioproxy.kv.chat_template import SHAPES
from bioproxy.prompt import Head
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.dialect_heads import MOST_FIELDS
from bioproxy.templates.expand import expand
from support.templates import Texts

USER = {"role": "user", "content": "@code x"}


def head(body: dict[str, Any], dialect: Dialect = "chat") -> Head:
    key = "input" if dialect == "responses" else "messages"
    data = msgspec.json.encode({key: [USER]} | body)
    found = expand(Body(data), dialect=dialect, catalogue=Texts({"@code": "<{message}>"}), pins=None, scope=b"").head
    assert found is not None
    return found


def read(raw: bytes) -> Any:
    return msgspec.json.decode(raw)


def test_a_bare_message_has_an_empty_head() -> None:
    """Equal to the one that a warm-up makes without knowing any client."""
    assert head({}) == Head()
    assert head({}, "anthropic") == Head()
    assert head({}, "responses") == Head()


def test_everything_before_the_first_user_message_is_the_head() -> None:
    """System and developer messages, and a greeting of the assistant's."""
    leading = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "hi", "name": "n"},
    ]
    assert read(head({"messages": [*leading, USER, leading[0]]}).messages) == leading


def test_tools_and_settings_are_kept_as_they_came() -> None:
    """Not a blank is changed."""
    data = b'{"tools":[ {"a" : 1} ],"chat_template_kwargs":{ "x":1e1},"lora":[ ],"messages":[]}'
    found = expand(Body(data), dialect="chat", catalogue=Texts({}), pins=None, scope=b"").head
    assert found is not None
    assert (found.tools, found.kwargs, found.lora) == (b'[ {"a" : 1} ]', b'{ "x":1e1}', b"[ ]")


def test_null_is_as_good_as_nothing() -> None:
    """SDKs write it for what is not set."""
    assert head({"tools": None, "chat_template_kwargs": None, "lora": None}) == Head()


def test_fields_that_may_shape_the_prompt_are_extra() -> None:
    """In an order of ours; what is about sampling or accounts is none of the head's business, nor is null."""
    body = {
        "temperature": 1,
        "reasoning_effort": "low",
        "enable_thinking": False,
        "new": {},
        "user": "u",
        "tools": None,
    }
    assert head(body | {"newer": None}).extra == b'{"enable_thinking":false,"new":{},"reasoning_effort":"low"}'
    fields = head({"chat_template_kwargs": {"a": 1}, "new": 1}).fields
    assert {name: value for (name, _), value in fields.items()} == {"new": b"1", "chat_template_kwargs": b'{"a":1}'}


def test_a_great_many_fields_are_one() -> None:
    """What nobody would want to know each by its own name still makes another prompt."""
    many = head({f"field_{number:03}": number for number in range(500)})
    assert len(many.fields) == MOST_FIELDS + 1
    assert many != head({f"field_{number:03}": min(number, 498) for number in range(500)})


def test_the_effort_of_a_responses_request_has_the_name_that_chat_templates_know() -> None:
    """As llama-server translates it; other kinds of reasoning stay as they came."""
    assert read(head({"reasoning": {"effort": "low", "summary": "auto"}}, "responses").extra) == {
        "reasoning_effort": "low"
    }
    assert read(head({"reasoning": {"summary": "auto"}}, "responses").extra) == {"reasoning": {"summary": "auto"}}
    assert read(head({"reasoning": "much"}, "responses").extra) == {"reasoning": "much"}


def test_the_shape_of_a_head_says_what_a_chat_template_may_look_at() -> None:
    """Some print the date only if there is no system message."""
    system, tools = {"messages": [{"role": "system", "content": "s"}, USER]}, {"tools": [{"type": "function"}]}
    assert [head(body).shape for body in ({}, system, tools, system | tools)] == list(SHAPES)


def test_cache_marks_are_no_part_of_a_head() -> None:
    """Clients move them."""
    part = {"type": "text", "text": "s"}
    marked = part | {"cache_control": {"type": "ephemeral"}}
    tool = {"type": "function", "function": {"name": "f"}}
    plain = head({"messages": [{"role": "system", "content": [part]}, USER], "tools": [tool]})
    other = head({"messages": [{"role": "system", "content": [marked]}, USER], "tools": [tool | {"cache_control": 1}]})
    assert plain == other


def test_anthropics_system_blocks_are_joined() -> None:
    """As llama-server joins them; other blocks are left out."""
    blocks = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b\n"}]
    assert read(head({"system": blocks}, "anthropic").messages) == [{"role": "system", "content": "ab\n"}]
    assert read(head({"system": "s"}, "anthropic").messages) == [{"role": "system", "content": "s"}]
    assert head({"system": None}, "anthropic") == Head()


def test_the_changing_letters_of_a_billing_line_are_pinned() -> None:
    """llama-server pins them before it renders, so the prompt does not change with them."""
    line = "x-anthropic-billing-header: cc_version=2.1; cch={};You are"
    found = [head({"system": [{"type": "text", "text": line.format(cch)}]}, "anthropic") for cch in ("a5145", "00fee")]
    assert found[0] == found[1]
    assert "cch=fffff;" in found[0].messages.decode()
    assert "cch=abc;" in head({"system": line.format("abc")}, "anthropic").messages.decode()
    assert "cch=a5145;" in head({"system": "x " + line.format("a5145")}, "anthropic").messages.decode()


def test_anthropics_tools_become_functions() -> None:
    """The schema as it came; what is missing is empty."""
    tools = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}, {"name": "g"}]
    assert read(head({"tools": tools}, "anthropic").tools) == [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "g", "description": "", "parameters": {}}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "tool", "name": "f"}, "required")],
)
def test_anthropics_tool_choice_becomes_a_word(choice: dict[str, str], expected: str) -> None:
    """An unknown one stays as it is."""
    assert read(head({"tool_choice": choice}, "anthropic").extra) == {"tool_choice": expected}
    assert read(head({"tool_choice": {"type": "new"}}, "anthropic").extra) == {"tool_choice": {"type": "new"}}


def test_responses_instructions_and_items_become_messages() -> None:
    """Typed items lose what the chat dialect does not know."""
    items = [
        {"type": "message", "role": "developer", "id": "1", "content": [{"type": "input_text", "text": "d"}]},
        USER,
    ]
    assert read(head({"instructions": "i", "input": items}, "responses").messages) == [
        {"role": "system", "content": "i"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
    ]


def test_responses_tools_get_their_envelope() -> None:
    """Functions are strict unless they say otherwise; other kinds stay as they are."""
    tools = [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]
    assert read(head({"tools": tools}, "responses").tools) == [
        {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}},
        {"type": "web_search"},
    ]


@pytest.mark.parametrize("dialect", ["anthropic", "responses"])
def test_tools_of_an_unknown_shape_stay_as_they_are(dialect: Dialect) -> None:
    """The engine says what is wrong with them."""
    assert head({"tools": "none"}, dialect).tools == b'"none"'
