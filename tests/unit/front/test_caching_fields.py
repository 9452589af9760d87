"""What a request says about prompt caching: read, taken out, and found in the prompt's pieces."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bioproxy.errors import RequestError
from bioproxy.front.caching.fields import HEAD, LAST, Breakpoint, Wishes, end_of_part, marked, places, take
from bioproxy.front.inference import asks
from bioproxy.kv.chain import chain
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import Expanded, expand

Json = Any
EPHEMERAL: Json = {"type": "ephemeral"}
EXPLICIT: Json = {"mode": "explicit"}


class NoTemplates:
    """A catalogue without templates."""

    def match(self, text: str) -> None:
        """No text begins with a prefix."""


def body_of(value: Json) -> Body:
    return Body(value if isinstance(value, bytes) else json.dumps(value).encode())


def taken(value: Json, dialect: Dialect = "anthropic") -> tuple[Wishes, bytes]:
    """What is asked for, and the body that an engine gets."""
    body = body_of(value)
    assert asks(body, dialect)
    return take(body, dialect), body.written()


def expanded(value: Json, dialect: Dialect) -> tuple[Expanded, Wishes]:
    body = body_of(value)
    wishes = take(body, dialect)
    return expand(body, dialect=dialect, catalogue=NoTemplates(), pins=None, scope=b""), wishes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"messages": [{"role": "user", "content": 'a text with "cache_control" and \\"prompt_cache_key\\"'}]}, "chat"),
        ({"input": "hello", "max_output_tokens": 0}, "responses"),
        ({"messages": [], "max_tokens": 10}, "anthropic"),
        ({"prompt": "hello", "prompt_cache_key": "k"}, "completion"),
        (b'{"messages": NaN, "cache_control": 1}', "chat"),
    ],
)
def test_a_request_that_says_nothing_is_known_by_one_look(body: Json, dialect: Dialect) -> None:
    """A word in a message is not a field, nor is what another API calls so."""
    assert not asks(body_of(body), dialect)


def test_all_else_passes_as_it_came() -> None:
    """Big numbers, escapes and blanks inside other values reach the engine as they were."""
    raw = (
        b'{"model":"m","seed":123456789012345678901234567890,"messages":[{"role":"user","content":"\\u00e4 \\/"},'
        b'{"role":"user","name":  "n","content":[{"type":"text","text":"\\u00fc","cache_control":{"type":"ephemeral"}},'
        b'{"type":"image","source":{"data": 1.0}}]}],"cache_control":{"type":"ephemeral"},"top_k":1e1}'
    )
    _, written = taken(raw)
    assert written == (
        b'{"model":"m","seed":123456789012345678901234567890,"messages":[{"role":"user","content":"\\u00e4 \\/"},'
        b'{"role":"user","name":"n","content":[{"type":"text","text":"\\u00fc"},'
        b'{"type":"image","source":{"data": 1.0}}]}],"top_k":1e1}'
    )


def test_every_place_of_anthropics_mark() -> None:
    """Top level, tools, system, blocks, blocks in a tool's result: none of them reaches the engine."""
    wishes, written = taken({
        "cache_control": EPHEMERAL,
        "tools": [{"name": "t", "input_schema": {"properties": {"cache_control": {}}}, "cache_control": EPHEMERAL}],
        "system": [{"type": "text", "text": "s", "cache_control": {**EPHEMERAL, "ttl": "1h"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": EPHEMERAL}]},
            {"role": "assistant", "content": "b"},
            {
                "role": "user",
                "content": [{"type": "tool_result", "content": [{"text": "c", "cache_control": EPHEMERAL}]}],
            },
        ],
        "diagnostics": {"previous_message_id": "msg_1"},
    })  # fmt: skip
    assert written.count(b"cache_control") == 1  # a property of a tool that is called so
    assert b"diagnostics" not in written
    assert wishes.breakpoints == (
        Breakpoint(HEAD, LAST, "1h"), Breakpoint(0, 0, "5m"), Breakpoint(2, 0, "5m"), Breakpoint(2, LAST, "5m"),
    )  # fmt: skip
    assert wishes.compare == "msg_1"


def test_openais_fields() -> None:
    """Options, key and retention are read and taken out; `metadata` stays the engine's."""
    wishes, written = taken(
        {
            "input": [{"role": "user", "content": [{"text": "a", "prompt_cache_breakpoint": EXPLICIT}]}],
            "prompt_cache_key": "k",
            "prompt_cache_options": {"mode": "explicit", "ttl": "12h", "comparison_response_id": "resp_1"},
            "prompt_cache_retention": "24h",
            "metadata": {"a": "b"},
        },
        "responses",
    )  # fmt: skip
    assert written == b'{"input":[{"role":"user","content":[{"text":"a"}]}],"metadata":{"a": "b"}}'
    assert (wishes.key, wishes.compare, wishes.ttl, wishes.retention) == ("k", "resp_1", "12h", "24h")
    assert wishes.breakpoints == (Breakpoint(0, 0, "12h"),)
    assert not wishes.kept
    assert not wishes.implicit


@pytest.mark.parametrize(("mode", "left"), [("implicit", [87, 88, 89]), ("explicit", [86, 87, 88, 89])])
def test_of_many_breakpoints_the_latest_are_kept(mode: str, left: list[int]) -> None:
    """The latest four, or three beside the prompt's end, however many there are."""
    parts = [{"type": "text", "text": str(n), "prompt_cache_breakpoint": EXPLICIT} for n in range(90)]
    messages = [{"role": "user", "content": parts}]
    wishes, _ = taken({"messages": messages, "prompt_cache_options": {"mode": mode}}, "chat")
    assert [one.part for one in wishes.breakpoints] == left


@pytest.mark.parametrize(
    ("fields", "dialect", "words"),
    [
        ({"cache_control": {"type": "persistent"}}, "anthropic", "cache_control"),
        ({"cache_control": {"type": "ephemeral", "ttl": "2h"}}, "anthropic", "ttl"),
        ({"prompt_cache_options": {"mode": "none"}}, "chat", "mode"),
        ({"prompt_cache_options": {"ttl": "12h"}}, "chat", "/v1/responses"),
        ({"prompt_cache_options": {"prewarm": True}}, "chat", "/v1/responses"),
        ({"prompt_cache_options": []}, "responses", "prompt_cache_options"),
        ({"prompt_cache_key": 5}, "chat", "prompt_cache_key"),
        ({"prompt_cache_retention": "48h"}, "responses", "prompt_cache_retention"),
        ({"diagnostics": {"previous_message_id": 5}}, "anthropic", "diagnostics"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields: Json, dialect: Dialect, words: str) -> None:
    """The sentence names the field; nothing that a client counts on is passed over."""
    with pytest.raises(RequestError, match=words):
        taken({"messages": [], **fields}, dialect)


def test_a_retention_in_memory() -> None:
    """In both of its spellings; nothing of such a request goes to the disk."""
    for word in ("in_memory", "in-memory"):
        wishes, _ = taken({"messages": [], "prompt_cache_retention": word}, "chat")
        assert wishes.retention == "in_memory"
        assert not wishes.stored


def test_null_is_as_good_as_nothing() -> None:
    """SDKs write null for what was not set."""
    fields = ("cache_control", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "diagnostics")
    wishes, written = taken({"messages": [], **dict.fromkeys(fields)})
    assert written == b'{"messages":[]}'
    assert wishes.breakpoints == ()
    assert wishes.compare is None


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"prompt_cache_key": "k"}, "k"),
        ({"metadata": {"user_id": "user_a_account_b_session_c"}, "prompt_cache_key": "k"}, "c"),
        ({"metadata": {"user_id": json.dumps({"session_id": "d", "device_id": "e"})}}, "d"),
        ({"metadata": {"user_id": "somebody"}}, ""),
        ({"metadata": None, "prompt_cache_key": "k"}, "k"),
        ({"metadata": {"user_id": 5}, "prompt_cache_key": "k"}, "k"),
        ({"metadata": {"user_id": "{"}, "prompt_cache_key": "k"}, "k"),
    ],
)
def test_what_a_body_calls_its_conversation(body: Json, name: str) -> None:
    """The session of `metadata.user_id`, else the key; a user is no conversation."""
    assert taken({"messages": [], **body})[0].conversation == name


def test_a_breakpoint_is_a_cut_that_another_request_shares() -> None:
    """Its digest is that of the prompt that ends there, whatever follows."""
    parts: Json = [{"type": "text", "text": "read this", "cache_control": EPHEMERAL}, {"type": "text", "text": "why?"}]
    first, wishes = expanded({"system": "s", "messages": [{"role": "user", "content": parts}]}, "anthropic")
    pieces = marked(first.pieces, wishes)
    (place,) = places(pieces, wishes)
    whole = sum(len(piece.data) for piece in pieces[: place.piece]) + place.offset
    (end,) = (cut for cut in chain("", pieces) if cut.offset == whole)
    parts[1]["text"] = "how?"
    second, again = expanded({"system": "s", "messages": [{"role": "user", "content": parts}]}, "anthropic")
    assert end in chain("", marked(second.pieces, again))
    assert pieces[1].data[: place.offset].endswith(b"read this")


HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"messages": [{"role": "system", "content": [{"text": "s", "prompt_cache_breakpoint": EXPLICIT}]}]}, "chat"),
        ({"messages": [], "system": [{"type": "text", "text": "s", "cache_control": EPHEMERAL}]}, "anthropic"),
        ({"messages": [], "tools": [{"name": "t", "cache_control": EPHEMERAL}]}, "anthropic"),
    ],
)
def test_a_breakpoint_in_the_head_stands_at_its_end(body: Json, dialect: Dialect) -> None:
    """In tools, in a system text or in a system message: chat templates print them together."""
    found, wishes = expanded({**body, "messages": [*body["messages"], HELLO, HELLO]}, dialect)
    (place,) = places(found.pieces, wishes)
    assert (place.piece, place.offset) == (0, len(found.pieces[0].data))
    assert marked(found.pieces, wishes) == found.pieces


def test_a_breakpoint_in_an_image() -> None:
    """It stands after the image, whose bytes are known by their digest alone."""
    image = {"type": "image", "source": {"data": "A" * 4000}, "cache_control": EPHEMERAL}
    content = [{"type": "text", "text": "a"}, image, {"type": "text", "text": "b"}]
    found, wishes = expanded({"messages": [{"role": "user", "content": content}]}, "anthropic")
    (place,) = places(found.pieces, wishes)
    assert found.pieces[1].data[place.offset :] == b"\xffb\xff\xff"


@pytest.mark.parametrize(("part", "end"), [(0, 6), (1, 8), (LAST, 10), (7, 10)])
def test_the_end_of_a_part(part: int, end: int) -> None:
    """A part that there is not ends with its message."""
    assert end_of_part(b"user\xffa\xffb\xff\xff", part) == end


def test_a_large_body_with_marks() -> None:
    """Twenty megabytes, a mark in each of many messages: each message is opened once, and nothing is lost."""
    text = "x" * 10_000
    message = {"role": "user", "content": [{"type": "text", "text": text, "cache_control": EPHEMERAL}]}
    wishes, written = taken({"messages": [message] * 2000})
    assert written.count(text.encode()) == 2000
    assert b"cache_control" not in written
    assert [one.item for one in wishes.breakpoints] == [1996, 1997, 1998, 1999]


def test_the_last_part_is_found_without_its_mark_and_with_a_part_after_it() -> None:
    """It is cut at the message's end, where each later turn has a cut; and where a further part would begin."""
    part: Json = {"type": "text", "text": "read this", "cache_control": EPHEMERAL}
    first, wishes = expanded({"messages": [{"role": "user", "content": [part]}]}, "anthropic")
    pieces = marked(first.pieces, wishes)
    digests = [cut.digest for cut in chain("", pieces)]
    (place,) = places(pieces, wishes)
    assert place.offset == len(pieces[1].data)
    later, _ = expanded({"messages": [{"role": "user", "content": "read this"}, HELLO]}, "chat")
    assert digests[-1] in [cut.digest for cut in chain("", later.pieces)]
    more, again = expanded({"messages": [{"role": "user", "content": [part, {**part, "text": "?"}]}]}, "anthropic")
    assert digests[-2] in [cut.digest for cut in chain("", marked(more.pieces, again))]


@pytest.mark.parametrize(
    "body",
    [
        b'{"system":[{"type":"text","text":"s","\xb3":1,"cache_control":{"type":"ephemeral"}}],"messages":[]}',
        b'{"messages":[],"cache_control":{"type":"ephemeral"},"metadata":{"user_id":"a_session_\xe3"}}',
    ],
)
def test_bytes_that_are_no_text(body: bytes) -> None:
    """A key or a name that is no UTF-8 is passed on as it came: the engine says what it thinks of it."""
    wishes, written = taken(body)
    assert wishes.conversation == ""
    assert re.findall(rb"[^\0-\x7f]", written) == re.findall(rb"[^\0-\x7f]", body)
