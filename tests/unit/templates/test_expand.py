"""Which messages are filled in, in four dialects, and with which version."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bioproxy.errors import RequestError
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import Expanded, expand
from bioproxy.templates.parse import Filled
from support.templates import Memory, Texts, filled

OLD = Texts({"@code": "OLD <{message}>.", "@doc": "DOC <{message}>"})
NEW = Texts({"@code": "NEW <{message}>.", "@doc": "DOC <{message}>"})


def run(
    body: dict[str, Any],
    dialect: Dialect = "chat",
    *,
    catalogue: Texts = OLD,
    pins: Memory | None = None,
    scope: bytes = b"",
) -> Expanded:
    data = msgspec.json.encode(body)
    return expand(Body(data), dialect=dialect, catalogue=catalogue, pins=pins, scope=scope)


def says(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def after(body: dict[str, Any], key: str = "messages", **options: Any) -> Any:
    return msgspec.json.decode(run(body, **options).body)[key]


def test_every_user_message_is_filled_in() -> None:
    """And nobody else's."""
    conversation = [
        says("system", "@code no"),
        says("user", "@code one"),
        says("assistant", "@code no"),
        says("user", "plain"),
        says("tool", "@code no"),
        says("user", "@doc two"),
    ]
    assert [message["content"] for message in after({"messages": conversation})] == [
        "@code no",
        "OLD one.",
        "@code no",
        "plain",
        "@code no",
        "DOC two",
    ]


def test_a_bare_prefix_has_an_empty_message() -> None:
    """The template stands alone."""
    assert after({"messages": [says("user", "@code")]}) == [says("user", "OLD .")]


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    """A message may begin with another prefix, or show how templates are written."""
    assert after({"messages": [says("user", "@code @doc <{message}>")]}) == [says("user", "OLD @doc <{message}>.")]


def test_the_first_part_that_begins_with_a_prefix_is_filled_in() -> None:
    """Agents put reminders before what was typed; images and further parts stay as they are."""
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "<system-reminder>"},
        {"type": "image_url", "image_url": {"url": "@code"}},
        {"type": "text", "text": "@code one", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "@code two"},
    ]
    (message,) = after({"messages": [says("user", parts)]})
    assert message["content"] == [*parts[:2], parts[2] | {"text": "OLD one."}, parts[3]]


def test_anthropics_messages_are_filled_in() -> None:
    """Strings and blocks; a tool's result is no text of the user's."""
    conversation = [
        says("user", "@code one"),
        says("assistant", [{"type": "tool_use", "id": "1", "name": "n", "input": {}}]),
        says("user", [{"type": "tool_result", "tool_use_id": "1", "content": "@code no"}]),
        says("user", [{"type": "text", "text": "@doc two"}]),
    ]
    found = after({"system": "@code no", "messages": conversation}, dialect="anthropic")
    assert found[0] == says("user", "OLD one.")
    assert found[1:3] == conversation[1:3]
    assert found[3] == says("user", [{"type": "text", "text": "DOC two"}])


def test_a_responses_input_is_filled_in() -> None:
    """A bare string, items with a string, items with parts; with a type or without."""
    assert after({"input": "@code one"}, "input", dialect="responses") == "OLD one."
    items = [
        {"role": "developer", "content": "@code no"},
        {"role": "user", "content": "@code one"},
        {"type": "function_call_output", "call_id": "1", "output": "@code no"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "@doc two"}]},
    ]
    found = after({"input": items}, "input", dialect="responses")
    assert found[0] == items[0]
    assert found[1] == {"role": "user", "content": "OLD one."}
    assert found[2] == items[2]
    assert found[3]["content"] == [{"type": "input_text", "text": "DOC two"}]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("@code one", "OLD one."),
        (["@code one", "@doc two", "x"], ["OLD one.", "DOC two", "x"]),
        ([[1, 2], "@code one"], [[1, 2], "OLD one."]),
    ],
)
def test_prompts_are_filled_in(prompt: Any, expected: Any) -> None:
    """A string, or the strings in a list."""
    assert after({"prompt": prompt}, "prompt", dialect="completion") == expected


@pytest.mark.parametrize("prompt", [[1, 2, 3], [], 5, None, {"prompt_string": "@code x"}, [[1], [2]]])
def test_prompts_of_token_ids_are_left_alone(prompt: Any) -> None:
    """And whatever else is no text."""
    body = msgspec.json.encode({"prompt": prompt})
    assert expand(Body(body), dialect="completion", catalogue=OLD, pins=None, scope=b"").body is body


def test_the_template_of_the_last_user_message_names_the_request() -> None:
    """Else that of the first message that was filled in; none without one."""
    first, last = says("user", "@code one"), says("user", "@doc two")
    answer = says("assistant", "a")
    assert run({"messages": [first, answer, last]}).prefix == "@doc"
    assert run({"messages": [first, answer, says("user", "x"), answer, last, answer, says("user", "y")]}).prefix == (
        "@code"
    )
    assert run({"messages": [says("user", "x")]}).prefix == ""
    assert run({"prompt": "@doc x"}, "completion").version == OLD.current("@doc").version


# Pins


def kept(expanded: Expanded) -> Memory:
    return Memory(dict(expanded.pins))


FIRST = [says("system", "s"), says("user", "@code one")]
SECOND = [*FIRST, says("assistant", "answer"), says("user", "@code two")]


def test_an_answered_message_is_filled_in_as_the_first_time() -> None:
    """The newest one from the current text."""
    pins = kept(run({"messages": FIRST}, pins=Memory()))
    found = after({"messages": SECOND}, catalogue=NEW, pins=pins)
    assert [found[1]["content"], found[3]["content"]] == ["OLD one.", "NEW two."]


def test_a_message_without_an_answer_takes_the_current_text() -> None:
    """Also where it is pinned: the question is asked again."""
    pins = kept(run({"messages": FIRST}, pins=Memory()))
    assert after({"messages": FIRST}, catalogue=NEW, pins=pins)[1]["content"] == "NEW one."


def test_a_tool_loop_counts_as_an_answer() -> None:
    """The last user message has an assistant's turn behind it while an agent works."""
    pins = kept(run({"messages": FIRST}, pins=Memory()))
    conversation = [*FIRST, says("assistant", None) | {"tool_calls": []}, says("tool", "result")]
    assert after({"messages": conversation}, catalogue=NEW, pins=pins)[1]["content"] == "OLD one."


def test_a_responses_tool_call_counts_as_an_answer() -> None:
    """Items of that kind have no role."""
    items = [{"role": "user", "content": "@code one"}]
    pins = kept(run({"input": items}, "responses", pins=Memory()))
    items = [*items, {"type": "function_call", "call_id": "1", "name": "n", "arguments": "{}"}]
    assert after({"input": items}, "input", dialect="responses", catalogue=NEW, pins=pins)[0]["content"] == "OLD one."


@pytest.mark.parametrize(
    "other",
    [
        [says("system", "another"), *SECOND[1:]],
        [says("system", "s"), says("user", "hello"), says("assistant", "hi"), *SECOND[1:]],
    ],
)
def test_another_conversation_has_its_own_pins(other: list[dict[str, Any]]) -> None:
    """What stands before a message belongs to its key."""
    pins = kept(run({"messages": FIRST}, pins=Memory()))
    texts = [message["content"] for message in after({"messages": other}, catalogue=NEW, pins=pins)]
    assert "OLD one." not in texts
    assert "NEW one." in texts


def test_another_key_has_its_own_pins() -> None:
    """Two who ask the same are two conversations."""
    pins = kept(run({"messages": FIRST}, pins=Memory(), scope=b"alice"))
    assert after({"messages": SECOND}, catalogue=NEW, pins=pins, scope=b"alice")[1]["content"] == "OLD one."
    assert after({"messages": SECOND}, catalogue=NEW, pins=pins, scope=b"bob")[1]["content"] == "NEW one."


def test_without_a_pin_the_current_text_is_used_and_pinned() -> None:
    """So that the conversation is stable from then on."""
    found = run({"messages": SECOND}, catalogue=NEW, pins=Memory())
    assert [text for _, text in found.pins] == [NEW.current("@code")] * 2
    again = after({"messages": [*SECOND, says("assistant", "b"), says("user", "c")]}, catalogue=OLD, pins=kept(found))
    assert [again[1]["content"], again[3]["content"]] == ["NEW one.", "NEW two."]


def test_a_pin_of_another_prefix_is_not_used() -> None:
    """The configuration changed what the words mean."""

    class Always:
        def get(self, key: bytes) -> Filled | None:
            assert len(key) == 16
            return filled("OTHER <{message}>", prefix="@other")

    body = msgspec.json.encode({"messages": SECOND})
    found = expand(Body(body), dialect="chat", catalogue=NEW, pins=Always(), scope=b"")
    assert b"OTHER" not in found.body


def test_nothing_is_pinned_without_a_template() -> None:
    """Nor where pins are not wanted."""
    assert run({"messages": [says("user", "x")]}, pins=Memory()).pins == ()
    assert run({"messages": FIRST}).pins == ()


def test_a_client_may_write_the_same_conversation_otherwise() -> None:
    """Parts for a string, marks that move: the pin is found all the same."""
    pins = kept(run({"messages": FIRST}, pins=Memory()))
    part = {"type": "text", "text": "@code one", "cache_control": {"type": "ephemeral"}}
    conversation = [FIRST[0], says("user", [part]), *SECOND[2:]]
    found = after({"messages": conversation}, catalogue=NEW, pins=pins)
    assert found[1]["content"][0]["text"] == "OLD one."


def test_a_request_may_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each small message becomes a whole template, and each place of a template the whole message."""
    monkeypatch.setattr("bioproxy.templates.expand.MOST_ADDED", 100)
    wide = Texts({"@code": "<{message}>" * 4})
    assert run({"messages": [says("user", "@code " + "x" * 30)]}, catalogue=wide).prefix == "@code"
    for messages in ([says("user", "@code " + "x" * 40)], [says("user", "@code " + "x" * 20)] * 2):
        with pytest.raises(RequestError, match="@code") as caught:
            run({"messages": messages}, catalogue=wide)
        assert caught.value.status == 413
    with pytest.raises(RequestError):
        run({"prompt": ["@code " + "x" * 20] * 2}, "completion", catalogue=wide)


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_a_request_that_forbids_the_cache_has_no_pieces(dialect: Dialect) -> None:
    """Its templates are filled in all the same; an Anthropic body's `cache_prompt` is nothing that the engine reads."""
    turns = [says("user", "@code one")]
    body = {"messages": turns, "input": turns, "cache_prompt": False}
    found = run(body, dialect)
    assert (found.prefix, found.pieces) == ("@code", ())
    assert run(body, "anthropic").pieces
    assert run({**body, "cache_prompt": True}, dialect).pieces
