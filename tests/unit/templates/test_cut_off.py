"""The beginning of a head as a head of its own: two of them part exactly where they were cut."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv.chain import places
from bioproxy.prompt import Head, common
from bioproxy.templates.dialect_heads import cut_off, head_piece

Json = Any
text = st.text(st.sampled_from('ab "\\\n{}é€😀'), min_size=1, max_size=300)


def tool(name: str) -> Json:
    return {"type": "function", "function": {"name": name, "description": "What it does."}}


def make(texts: list[str], tools: list[str], lora: bytes = b"") -> Head:
    messages = [{"role": "system", "content": one} for one in texts]
    encoded = msgspec.json.encode([tool(name) for name in tools]) if tools else b""
    return Head(messages=msgspec.json.encode(messages), tools=encoded, lora=lora)


@given(st.lists(text, min_size=1, max_size=3), st.lists(text, max_size=3), st.data())
def test_what_was_cut_off_begins_as_the_head_does(texts: list[str], tools: list[str], draw: st.DataObject) -> None:
    """Wherever it is cut, both share the bytes up to there and no more than a bracket after them, or there is none."""
    head = make(texts, tools)
    piece = head_piece(head).data
    at = draw.draw(st.integers(0, len(piece)) | st.sampled_from(places(head_piece(head))))
    first, second = cut_off(head, at, "Compare"), cut_off(head, at, "7th")
    if first is None or second is None:
        return
    if first.messages != head.messages:  # in a message: exactly there; the closing quote of a text may be left out
        assert common(piece, head_piece(first).data) in range(at - 3, at + 8)
        found = [[one["content"] for one in msgspec.json.decode(each.messages)] for each in (first, second)]
        assert [one.removesuffix("Compare") for one in found[0]] == [one.removesuffix("7th") for one in found[1]]
        whole = "\0".join(found[0]).removesuffix("Compare")
        assert "\0".join(texts).startswith(whole)
    else:
        kept = [one["function"]["name"] for one in msgspec.json.decode(first.tools)]
        assert kept[-1] == "Compare"
        assert kept[:-1] == tools[: len(kept) - 1]


def test_it_is_cut_at_every_line_and_tool() -> None:
    """At the places where the chain has cuts there is always one, but for the end of `lora`."""
    head = make(["Be kind.\n" * 300, "And brief."], ["look", "take"], lora=b'[{"id":0,"scale":1}]')
    for at in places(head_piece(head))[1:]:
        found = cut_off(head, at, "7th")
        assert found is not None, at
        assert b"7th" in (found.tools if found.messages == head.messages else found.messages)


def test_where_there_is_no_text_there_is_none() -> None:
    """Before the first word, in parts that are no text, and after the end of a head without tools."""
    assert cut_off(make(["Be kind."], []), 4, "7th") is None
    parts = [{"role": "system", "content": [{"type": "text", "text": "Be kind."}]}]
    assert cut_off(Head(messages=msgspec.json.encode(parts)), 50, "7th") is None
    assert cut_off(make(["Be kind."], []), 1000, "7th") is None
