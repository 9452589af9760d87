"""What a prompt is made of: the same beginning for the next turn, and for the warm-up."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import chain, common
from bioproxy.prompt import Head, Piece
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.dialect_heads import head_piece
from bioproxy.templates.expand import Expanded, expand, template_pieces
from support.templates import Memory, Texts, filled

CATALOGUE = Texts({"@code": "STÄTIC <{message}> END", "@bare": "<{message}>"})


def run(body: dict[str, Any], dialect: Dialect = "chat", pins: Memory | None = None) -> Expanded:
    return expand(Body(msgspec.json.encode(body)), dialect=dialect, catalogue=CATALOGUE, pins=pins, scope=b"")


def digest(pieces: tuple[Piece, ...], end: int | None = None) -> bytes:
    return hashlib.sha256(b"".join(piece.data for piece in pieces)[:end]).digest()


def mark(pieces: tuple[Piece, ...]) -> int:
    """The offset of the only mark, over all pieces."""
    before = 0
    found = []
    for piece in pieces:
        found += [before + offset for offset in piece.marks]
        before += len(piece.data)
    (only,) = found
    return only


texts = st.text(max_size=12)
parts = st.lists(
    st.builds(lambda text: {"type": "text", "text": text}, texts)
    | st.just({"type": "image_url", "image_url": {"url": "data:"}}),
    max_size=3,
)
contents = texts | parts | texts.map("@code ".__add__)
users = st.builds(lambda content: {"role": "user", "content": content}, contents)
answers = st.builds(lambda content: {"role": "assistant", "content": content}, contents) | st.just(
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
)
tools = st.builds(lambda content: {"role": "tool", "tool_call_id": "1", "content": content}, texts)
systems = st.lists(st.builds(lambda text: {"role": "system", "content": text}, texts), max_size=2)
turns = st.lists(users | answers | tools, max_size=5)


@given(systems, users, turns, st.lists(users | answers | tools, min_size=1, max_size=3))
def test_one_more_turn_has_the_same_leading_bytes(
    system: list[Any], first: Any, conversation: list[Any], more: list[Any]
) -> None:
    """Piece by piece; whatever fields the new messages have."""
    head = [*system, first]
    before = run({"messages": [*head, *conversation]})
    pins = Memory(dict(before.pins))
    after = run({"messages": [*head, *conversation, *more]}, pins=pins)
    count = len(before.pieces)
    assert after.pieces[:count] == before.pieces
    assert chain("", after.pieces)[: len(chain("", before.pieces))] == chain("", before.pieces)


@given(systems, texts, turns, st.sampled_from(["@code", "@bare"]))
def test_a_warm_up_has_the_digest_of_a_requests_mark(
    system: list[Any], message: str, conversation: list[Any], prefix: str
) -> None:
    """Whatever stands before and behind; so a snapshot of the template is found by its hash."""
    body = {"messages": [*system, {"role": "user", "content": f"{prefix} {message}"}, *conversation], "tools": []}
    found = run(body)
    assert found.head is not None
    warm = template_pieces(found.head, CATALOGUE.current(prefix))
    assert digest(warm) == digest(found.pieces, mark(found.pieces))
    assert chain("", warm)[-1] in chain("", found.pieces)


def shared(one: dict[str, Any], other: dict[str, Any]) -> bytes:
    """The bytes of a conversation up to the last cut that it shares with another one."""
    pieces = run(one).pieces
    position = common(cuts := chain("", pieces), {cut.digest for cut in chain("", run(other).pieces)})
    return b"".join(piece.data for piece in pieces)[: cuts[position - 1].offset if position else 0]


def test_each_tool_and_each_system_message_ends_with_a_cut() -> None:
    """A tool that changes at the end of the list, or a message that is put in behind others, loses none before it."""
    tools = [{"type": "function", "function": {"name": name, "description": "}]\xff"}} for name in "abc"]
    systems = [{"role": "system", "content": content} for content in ("one", "two", "three")]
    body = {"messages": [*systems, *SAME[0]], "tools": tools}
    assert shared(body, body | {"tools": [*tools[:2], {"type": "other"}]}).endswith(msgspec.json.encode(tools[1]))
    assert shared(body, body | {"messages": [*systems[:2], *SAME[0]]}).endswith(msgspec.json.encode(systems[1]))
    blanks = json.dumps(tools).encode()
    other = json.dumps([*tools[:2], 1]).encode()
    heads = [head_piece(Head(tools=data)) for data in (blanks, other)]
    assert chain("", heads[:1])[1] == chain("", heads[1:])[1]


def test_a_line_that_changes_at_the_end_of_a_system_message_leaves_what_stands_before_it() -> None:
    """A date, a folder, a memory: most of the message is common, line ends in JSON or not."""
    rules = "".join(f"Rule {number}: be kind to everyone you meet.\n" for number in range(100))
    bodies = [{"messages": [{"role": "system", "content": rules + day}, *SAME[0]]} for day in ("Monday", "Tuesday")]
    assert len(shared(*bodies)) > 0.8 * len(rules)


def test_an_image_is_one_thing() -> None:
    """No cut stands within it, two images share nothing, and its letters do not outweigh the text."""
    images = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000 + last}} for last in "AB"
    ]
    one, other = ({"messages": [{"role": "user", "content": [image]}]} for image in images)
    assert shared(one, other) == run({"messages": []}).pieces[0].data
    assert sum(len(piece.data) for piece in run(one).pieces) < 200


def test_only_the_first_template_of_a_conversation_is_marked() -> None:
    """Later ones are no prompt prefix that a warm-up could know."""
    conversation = [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": "@code one"},
        {"role": "user", "content": "@code two"},
    ]
    assert [len(piece.marks) for piece in run({"messages": conversation}).pieces] == [0, 0, 1, 0]


def test_a_mark_stands_behind_the_reminders_before_the_template() -> None:
    """The offset counts bytes, not letters."""
    content = [{"type": "text", "text": "ö"}, {"type": "text", "text": "@code x"}]
    (_, piece) = run({"messages": [{"role": "user", "content": content}]}).pieces
    assert piece.data[: piece.marks[0]] == b"user\xff" + "ö".encode() + b"\xff" + "STÄTIC ".encode()


def test_labels_name_each_piece() -> None:
    """For people who look for the reason of a miss."""
    body = {"messages": [{"role": role, "content": ""} for role in ("system", "user", "assistant")]}
    assert [piece.label for piece in run(body).pieces] == ["head", "message 1 (user)", "message 2 (assistant)"]


SAME: list[list[Any]] = [
    [{"role": "user", "content": "a"}],
    [{"content": "a", "role": "user"}],
    [{"role": "user", "content": "a", "cache_control": {"type": "ephemeral"}}],
    [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    [{"role": "user", "content": [{"text": "a", "type": "text", "cache_control": {"type": "ephemeral"}}]}],
]


@pytest.mark.parametrize("messages", SAME)
def test_what_does_not_shape_the_prompt_does_not_shape_the_pieces(messages: list[Any]) -> None:
    """Clients write the same message in different ways, and move their marks from turn to turn."""
    assert run({"messages": messages, "temperature": 1, "response_format": {}}).pieces == (
        run({"messages": SAME[0]}).pieces
    )


def test_escapes_do_not_shape_the_pieces() -> None:
    """The text counts, not how it is written; in the head too."""
    found = [
        expand(
            Body(b'{"messages":[{"role":"system","content":"%b"},{"role":"user","content":"%b"}]}' % (text, text)),
            dialect="chat",
            catalogue=CATALOGUE,
            pins=None,
            scope=b"",
        )
        for text in ("é".encode(), rb"\u00e9")
    ]
    assert found[0].pieces == found[1].pieces
    assert found[0].head == found[1].head


DIFFERENT = [
    {"messages": [{"role": "user", "content": "b"}]},
    {"messages": [{"role": "assistant", "content": "a"}]},
    {"messages": [{"role": "user", "content": "a", "name": "n"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}]},
    {"messages": [{"role": "user", "content": 1}]},
    {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": ""}]},
    {"messages": SAME[0], "tools": [{}]},
    {"messages": SAME[0], "lora": [{"id": 0, "scale": 1.0}]},
]


@pytest.mark.parametrize("body", DIFFERENT)
def test_what_shapes_the_prompt_shapes_the_pieces(body: dict[str, Any]) -> None:
    """Roles, texts, where a part ends, other fields of a message, tools, adapters."""
    assert digest(run(body).pieces) != digest(run({"messages": SAME[0]}).pieces)


def test_what_a_field_of_the_body_does_is_for_the_engine_to_say() -> None:
    """It is noted beside the pieces."""
    found = run({"messages": SAME[0], "tool_choice": "none", "chat_template_kwargs": {"enable_thinking": False}})
    assert found.pieces == run({"messages": SAME[0]}).pieces
    assert found.head is not None
    assert list(found.head.fields.values()) == [b'"none"', b'{"enable_thinking":false}']


def test_three_dialects_that_say_the_same_have_the_same_pieces() -> None:
    """llama-server renders them to the same prompt."""
    user = {"role": "user", "content": "@code x"}
    chat = run({"messages": [{"role": "system", "content": "s"}, user]})
    anthropic = run({"system": "s", "messages": [user]}, "anthropic")
    responses = run({"instructions": "s", "input": "@code x"}, "responses")
    assert chat.pieces == anthropic.pieces == responses.pieces
    assert chat.head == anthropic.head == responses.head


def test_a_prompt_is_one_piece_with_its_mark() -> None:
    """A completion has no head; of several prompts none is the prompt."""
    (piece,) = run({"prompt": "@code x"}, "completion").pieces
    assert piece.data[: piece.marks[0]] == b"prompt\xff" + "STÄTIC ".encode()
    assert run({"prompt": "@code x"}, "completion").head is None
    assert run({"prompt": ["a", "b"]}, "completion").pieces == ()
    assert run({"prompt": ["a"]}, "completion").pieces == run({"prompt": "a"}, "completion").pieces


def test_token_ids_are_a_piece_as_they_came() -> None:
    """A longer row of ids begins with the same bytes."""
    (one,), (other,) = (run({"prompt": ids}, "completion").pieces for ids in ([1, 2], [1, 2, 3]))
    assert other.data.startswith(one.data[:-1])


def test_lora_shapes_a_prompt() -> None:
    """Another adapter is another cache."""
    body = {"prompt": "a"}
    assert run(body, "completion").pieces != run(body | {"lora": [{"id": 0, "scale": 1}]}, "completion").pieces


def test_the_template_pieces_end_at_the_mark() -> None:
    """The second piece stops where the message would begin."""
    head = run({"messages": [{"role": "system", "content": "s"}]}).head
    assert head is not None
    first, second = template_pieces(head, filled("A <{message}> B"))
    assert (first.label, second.data) == ("head", b"user\xffA ")
