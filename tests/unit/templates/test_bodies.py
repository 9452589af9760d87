"""Bodies are opened, never rebuilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.errors import RequestError
from bioproxy.templates.bodies import BOM, LONGEST_READ, MOST_PLACES, MOST_VALUES, Body, Dialect
from bioproxy.templates.expand import Expanded, expand
from support.templates import Texts

CATALOGUE = Texts({"@code": "STATIC <{message}> END"})


def run(body: bytes, *, drop: frozenset[str] = frozenset()) -> Expanded:
    return expand(Body(body), dialect="chat", catalogue=CATALOGUE, pins=None, scope=b"", drop=drop)


def chat(content: str, more: str = "") -> bytes:
    return b'{"messages":[{"role":"user","content":%s}]%s}' % (json.dumps(content).encode(), more.encode())


def many(one: bytes) -> bytes:
    """More of one thing than is worked through."""
    return b",".join(one % number if b"%d" in one else one for number in range(MOST_PLACES + 1))


ODD = [
    "123456789012345678901234567890",
    "-0.10e+05",
    r'"\u00e9\/\ud83d\ude00"',
    '{ "b" : 1,\n "a":[ ] }',
    "[1 , 2,\t3]",
    "null",
    '"ä"',
]


@pytest.mark.parametrize("value", ODD)
def test_values_that_we_do_not_change_pass_as_they_came(value: str) -> None:
    """Digits, escapes, blanks inside and the order of keys."""
    body = run(chat("@code x", f', "odd" : {value}')).body
    assert f'"odd":{value}'.encode() in body
    assert json.loads(body)["messages"][0]["content"] == "STATIC x END"


def test_a_body_without_a_prefix_is_the_same_object() -> None:
    """Not even copied."""
    body = chat("hello @code", ', "odd" : [ 1 ]')
    assert run(body).body is body
    assert run(body, drop=frozenset({"id_slot"})).body is body


def test_keys_keep_their_order() -> None:
    """The changed one stays where it was."""
    body = b'{"z":1,"messages":[{"role":"user","content":"@code x"}],"a":2}'
    assert list(json.loads(run(body).body)) == ["z", "messages", "a"]


def test_of_equal_keys_the_last_wins_and_is_written_once() -> None:
    """At the top level and in a changed message, as the engine reads them."""
    body = b'{"n":1,"messages":[],"n":2,"messages":[{"role":"user","content":"no","content":"@code x"}]}'
    assert run(body).body == b'{"n":2,"messages":[{"role":"user","content":"STATIC x END"}]}'


def test_messages_without_a_change_pass_as_they_came() -> None:
    """Blanks, escapes and unknown fields included."""
    odd = b'{ "role" : "assistant",  "content":"\\u00e9" , "x":{"y" : 1e5} }'
    body = b'{"messages":[%b, {"role":"user","content":"@code x"}]}' % odd
    assert odd in run(body).body


def test_other_fields_of_a_changed_message_pass_as_they_came() -> None:
    """The content alone is written anew."""
    body = b'{"messages":[{"name":"\\u00e9","content":"@code x","role":"user","n":1.50}]}'
    assert run(body).body == b'{"messages":[{"name":"\\u00e9","content":"STATIC x END","role":"user","n":1.50}]}'


def test_a_field_is_taken_out() -> None:
    """Where a template is filled in too, and where none is."""
    drop = frozenset({"id_slot"})
    assert run(b'{"id_slot":0,"a":1}', drop=drop).body == b'{"a":1}'
    assert b"id_slot" not in run(chat("@code x", ',"id_slot":0'), drop=drop).body
    assert run(b'{"id\\u005fslot":0,"a":1}', drop=drop).body == b'{"a":1}'


def test_a_field_is_left_where_it_is_not_to_be_taken_out() -> None:
    """Engines with several slots may be asked for one."""
    found = run(b'{"id_slot":0}')
    assert found.body == b'{"id_slot":0}'
    assert Body(found.body).has("id_slot")


def test_a_large_body_that_is_no_json_is_not_looked_at() -> None:
    """Value by value it would hold up everybody; what must not reach the engine is still found in it."""
    body = b'{"a":NaN,"model":"m","b":"%b"}' % (b"x" * LONGEST_READ)
    opened = Body(body)
    assert (opened.fields, opened.names, opened.model) == (None, None, "")
    assert run(body, drop=frozenset({"id_slot"})).body is body
    with pytest.raises(RequestError, match="leave `id_slot` away"):
        run(body.replace(b'"model"', b'"id\\u005Fslot"'), drop=frozenset({"id_slot"}))


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("chat", b'{"messages":[%b]}' % many(b'{"role":"user","content":"@code x"}')),
        ("chat", b'{"messages":[{"role":"user","content":[%b]}]}' % many(b'{"type":"text","text":"@code x"}')),
        ("chat", b'{"messages":[{"role":"user","content":"@code x",%b}]}' % many(b'"a%d":1')),
        ("responses", b'{"input":[%b]}' % many(b'{"role":"user","content":"@code x","type":"message"}')),
        ("anthropic", b'{"messages":[],"system":[%b]}' % many(b'{"type":"text","text":"x"}')),
        ("completion", b'{"prompt":[%b]}' % many(b'"@code x"')),
        ("chat", b'{"messages":[{"role":"user","content":"@code x"}],%b}' % many(b'"a%d":1')),
        ("chat", b'{"messages":[%b]}' % b",".join([b"{}"] * (MOST_VALUES + 2))),
    ],
    ids=["messages", "parts", "fields", "items", "system", "prompts", "keys", "elements"],
)
def test_more_than_any_prompt_has_passes_as_it_came(dialect: Dialect, body: bytes) -> None:
    """Nothing is filled in one by one while others wait."""
    found = expand(Body(body), dialect=dialect, catalogue=CATALOGUE, pins=None, scope=b"")
    assert found.body is body
    assert found.prefix == ""


def test_token_ids_are_one_prompt_however_many() -> None:
    """They are not looked at one by one."""
    body = b'{"prompt":[%b]}' % b",".join([b"17"] * MOST_PLACES)
    found = expand(Body(body), dialect="completion", catalogue=CATALOGUE, pins=None, scope=b"")
    assert (found.body is body, len(found.pieces)) == (True, 1)


def test_a_byte_order_mark_is_skipped() -> None:
    """As the engine skips it; an unchanged body keeps it."""
    assert json.loads(run(BOM + chat("@code x")).body)["messages"][0]["content"] == "STATIC x END"
    body = BOM + chat("x")
    assert run(body).body is body
    assert Body(body).fields is not None


def test_what_a_request_asks_for_is_read() -> None:
    """Model, streaming, slot; whatever is of another type counts as not said."""
    body = b'{"model":"m\\u00e9","stream":true,"stream_options":{"include_usage":true},"id_slot":1}'
    found = Body(body)
    assert (found.model, found.stream, found.has("id_slot")) == ("mé", True, True)
    found = Body(b'{"model":1,"stream":"true","stream_options":[]}')
    assert (found.model, found.stream, found.has("id_slot")) == ("", False, False)


UNREADABLE = {
    "NaN": b'{"model":"m","stream":true,"temperature":NaN,"messages":[{"role":"user","content":"@code x"}]}',
    "a lone surrogate": b'{"model":"m","stream":true,"messages":[{"role":"user","content":"@code \\ud800"}]}',
    "a lone surrogate elsewhere": b'{"model":"m","stream":true,"user":"\\udfff"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_msgspec_cannot_read_is_only_looked_at(body: bytes) -> None:
    """Nothing is filled in, and the body passes as it is."""
    found = run(body, drop=frozenset({"id_slot"}))
    assert found.body is body
    assert (Body(body).model, found.stream, found.pieces) == ("m", True, ())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"no json",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":"\xff"} x',
        b'{"model":"\xff"}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_nobody_can_read_passes_as_it_is(body: bytes) -> None:
    """The engine may understand it, or say what is wrong with it."""
    found = run(body, drop=frozenset({"id_slot"}))
    assert found.body is body
    assert found.pieces == ()


@pytest.mark.parametrize("body", [b"[]", b"1", b'"id_slot"', b"null", b'[{"id_slot":0}]'])
def test_a_body_that_is_no_object_passes(body: bytes) -> None:
    """It has no fields."""
    assert run(body, drop=frozenset({"id_slot"})).body is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"id_slot":0,"x":NaN}',
        b'{"id_slot":0,"x":"\\ud800"}',
        b'{"id_slot":0,"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"id_slot":0,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"\\u0069d\\u005Fslot":0,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id_slot":0,"x":"\xff"} x',
    ],
)
def test_a_slot_that_cannot_be_taken_out_is_refused(body: bytes) -> None:
    """An engine might read what we cannot; the sentence says what to do."""
    with pytest.raises(RequestError, match="leave `id_slot` away") as caught:
        run(body, drop=frozenset({"id_slot"}))
    assert caught.value.status == 400
    assert Body(body).has("id_slot")


def test_a_slot_in_a_text_is_none() -> None:
    """Where the standard library can read the body, only its keys count."""
    body = b'{"x":NaN,"messages":[{"role":"user","content":"\\"id_slot\\""}],"y":{"id_slot":0}}'
    assert run(body, drop=frozenset({"id_slot"})).body is body


@pytest.mark.parametrize(
    "messages",
    [
        b"1",
        b"null",
        b'"@code x"',
        b'["@code x"]',
        b"[[]]",
        b'[{"role":"user"}]',
        b'[{"role":"user","content":1}]',
        b'[{"role":1,"content":"@code x"}]',
        b'[{"role":"user","content":["@code x"]}]',
        b'[{"role":"user","content":[{"type":"text","text":1}]}]',
        b'[{"role":"user","content":[{"type":1,"text":"@code x"}]}]',
        b"[]",
    ],
)
def test_messages_of_an_unknown_shape_pass(messages: bytes) -> None:
    """The engine says what is wrong with them; fields can still be taken out."""
    body = b'{"messages":%b,"id_slot":0}' % messages
    assert run(body).body is body
    assert run(body, drop=frozenset({"id_slot"})).body == b'{"messages":%b}' % messages


# Any JSON at all, as a client may write it: odd blanks, odd escapes, odd numbers, equal keys.

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=10**18, max_value=10**40), st.text(max_size=8)
)
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
dumps: list[Callable[[Any], str]] = [
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    lambda value: json.dumps(value, indent=2),
    lambda value: json.dumps(value, separators=(" ,\t", " :\n")).replace("/", "\\/"),
]
raw_values = st.tuples(values, st.sampled_from(dumps)).map(lambda pair: pair[1](pair[0]))
names = st.text(max_size=5).filter(lambda name: name not in {"messages", "id_slot"})
members = st.lists(st.tuples(names, raw_values), max_size=6)


def join(pairs: list[tuple[str, str]]) -> bytes:
    return ("{ " + " , ".join(f"{json.dumps(name)} :\t{value}" for name, value in pairs) + "\n}").encode()


@given(before=members, after=members, message=st.text(max_size=20))
def test_whatever_a_client_writes_reaches_the_engine(
    before: list[tuple[str, str]], after: list[tuple[str, str]], message: str
) -> None:
    """Every top-level value but the messages is the same bytes, the last of equal keys, in the order of the first."""
    messages = json.dumps([{"role": "user", "content": "@code " + message}])
    pairs = [*before, ("messages", messages), *after]
    raws = msgspec.json.decode(run(join(pairs)).body, type=dict[str, msgspec.Raw])
    wanted = dict(pairs)
    assert list(raws) == list(wanted)
    for name, raw in raws.items():
        if name == "messages":
            assert msgspec.json.decode(raw) == [{"role": "user", "content": f"STATIC {message} END"}]
        else:
            assert bytes(raw).decode() == wanted[name]


@given(members)
def test_a_body_that_needs_no_change_is_never_touched(pairs: list[tuple[str, str]]) -> None:
    """Whatever else is in it."""
    body = join(pairs)
    assert run(body, drop=frozenset({"id_slot"})).body is body


@given(st.binary(max_size=200))
def test_garbage_never_raises(body: bytes) -> None:
    """It passes as it came."""
    assert run(body).body is body
    Body(body)
