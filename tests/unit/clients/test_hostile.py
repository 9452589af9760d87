"""Bodies that are no conversation, or a hostile one: nothing raises, and nothing is changed that is not a rule's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.clients.mend import Memory, mend
from bioproxy.clients.recognition import Rules, find
from bioproxy.clients.view import View
from bioproxy.config.schema import Clients, StabilizeRule
from bioproxy.templates.bodies import Body, Dialect
from support.requests_of_clients import CLAUDE, MESSAGES

Json = Any
TEXTS = st.sampled_from(
    ["", "hi", "Count: 1", "a\nCount: 2\nb", "x-anthropic-billing-header: 1", "\ud800", "[SUGGESTION MODE: x"]
)
KEYS = st.sampled_from(["role", "content", "type", "text", "name", "function", "x"])
VALUES: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.sampled_from(["system", "user", "text", "function"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(["messages", "system", "tools", "input", "instructions", "max_tokens", "stream", "model"]), VALUES
)
OWN = tuple(
    StabilizeRule(name=do, line="Count: *", do=do, mode="on")
    for do in ("pin", "move", "drop", "sort_tools", "canonical_tools")
)
RULES = Rules(Clients(stabilize=OWN, stabilize_mode="on"))


@given(body=FIELDS, dialect=st.sampled_from(["chat", "anthropic", "responses", "completion"]))
def test_no_body_raises(body: Json, dialect: Dialect) -> None:
    """Whatever stands where a message, a text or a tool should be."""
    opened = Body(json.dumps(body).encode())
    if opened.fields is None:
        return
    seen = RULES.look(CLAUDE.encode(), MESSAGES)
    view = View(dialect, opened)
    mend(view, find(seen, {}, view).mend, Memory(), b"")
    found = json.loads(opened.written())
    assert {
        key: value
        for key, value in found.items()
        if key not in {"messages", "system", "tools", "input", "instructions"}
    } == {
        key: value for key, value in body.items() if key not in {"messages", "system", "tools", "input", "instructions"}
    }


@pytest.mark.parametrize("count", [30_000])
def test_a_body_of_very_many_places_is_left_alone(count: int) -> None:
    """Of more messages or tools than any prompt has."""
    body = Body(
        json.dumps({"messages": [{"role": "system", "content": "Count: 1"}] * count, "tools": [{}] * count}).encode()
    )
    view = View("chat", body)
    assert mend(view, OWN, Memory(), b"") == ()
    assert not body.changed


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("anthropic", b'{"messages":[{"role":"user","content":[{"type":"text","text":"a\xbf"}]}]}'),
        ("chat", b'{"messages":[{"role":"system","content":[{"type":"text","text":"a\xbf"}]}]}'),
        ("responses", b'{"input":"a\xbf"}'),
    ],
)
def test_a_text_that_is_none(dialect: Dialect, body: bytes) -> None:
    """One that is no UTF-8 says nothing to a rule; it shows only when the text itself is read."""
    view = View(dialect, Body(body))
    assert ([*view.first], [*view.last], view.system) == ([], [], {})
