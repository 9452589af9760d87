"""Prompts that change where nothing of meaning does: what is moved, pinned, dropped, sorted, and what that spares."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.clients.counts import MendCounts
from bioproxy.clients.mend import Memory, mend
from bioproxy.clients.recognition import Rules, find
from bioproxy.clients.view import View
from bioproxy.config.schema import Clients, StabilizeRule
from bioproxy.templates.bodies import Body, Dialect
from support.requests_of_clients import MAIN, MESSAGES, Sent, claude, user

Json = Any
LONG = "All else is the same. " * 40
TEXT = {"type": "text", "text": "a\nCount: 1\nb"}
PIN = StabilizeRule(name="r", line="Count: *", do="pin", mode="on")


def mended(
    rule: StabilizeRule, body: Json, *, dialect: Dialect = "chat", memory: Memory | None = None, scope: bytes = b""
) -> Json:
    """The body that goes on."""
    opened = Body(json.dumps(body).encode())
    mend(View(dialect, opened), (rule,), memory if memory is not None else Memory(), scope)
    return json.loads(opened.written())


def chat(system: str, *texts: str) -> Json:
    return {"messages": [{"role": "system", "content": system}, *user(*texts)], "n": 1.0}


def rule(do: str, line: str = "Count: *", mode: str = "on") -> StabilizeRule:
    return StabilizeRule(name="r", line=line, do=do, mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("do", "system", "wanted"),
    [
        ("drop", "a\nCount: 1\nb", "a\nb"),
        ("drop", "Count: 1\nb", "b"),
        ("drop", "a\nCount: 1", "a"),
        ("drop", "Count: 1", ""),
        ("drop", "a\r\nCount: 1\r\nb", "a\r\nb"),
        ("drop", "Count: 1\nCount: 2\nb", "b"),
        ("move", "a\nCount: 1\nb", "a\nb\nCount: 1"),
        ("move", "a\nCount: 1", "a\nCount: 1"),
        ("move", "Count: 1", "Count: 1"),
        ("move", "Count: 1\na\nCount: 2\nb", "a\nb\nCount: 1\nCount: 2"),
        ("pin", "a\nCount: 1\nb", "a\nCount: 1\nb"),
        ("drop", "a\n Count: 1\nb", "a\n Count: 1\nb"),
    ],
)
def test_a_line_of_the_system_message(do: str, system: str, wanted: str) -> None:
    """The whole line, and only lines that fit from their beginning to their end."""
    assert mended(rule(do), chat(system, "hi"))["messages"][0]["content"] == wanted


@pytest.mark.parametrize(
    ("dialect", "body", "wanted"),
    [
        ("chat", {"messages": [{"role": "developer", "content": [TEXT]}, *user("x")]}, "a\\nb"),
        ("anthropic", {"system": "a\nCount: 1\nb", "messages": user("x")}, "a\\nb"),
        ("anthropic", {"system": [TEXT | {"cache_control": {}}], "messages": []}, "a\\nb"),
        ("responses", {"instructions": "a\nCount: 1\nb", "input": "x"}, "a\\nb"),
        ("responses", {"input": [{"role": "system", "content": "a\nCount: 1\nb"}, *user("x")]}, "a\\nb"),
    ],
)
def test_the_system_text_of_each_dialect(dialect: Dialect, body: Json, wanted: str) -> None:
    """Wherever it stands; all else stays."""
    changed = mended(rule("drop"), body, dialect=dialect)
    assert json.dumps(changed) == json.dumps(body).replace("a\\nCount: 1\\nb", wanted)


def test_what_people_say_is_never_changed() -> None:
    """Not even if it looks like such a line, nor what the system says in the middle of a conversation."""
    body = {"messages": [*user("Count: 1"), {"role": "system", "content": "Count: 2"}]}
    assert mended(rule("drop"), body) == body


def test_a_pinned_line_stays_what_it_was_at_the_first_turn() -> None:
    """For this conversation; another one begins with its own."""
    memory = Memory()
    first = mended(PIN, chat(f"Count: 1\n{LONG}", "hi"), memory=memory)
    second = mended(PIN, chat(f"Count: 2\n{LONG}", "hi", "more"), memory=memory)
    other = mended(PIN, chat(f"Count: 2\n{LONG}", "hello"), memory=memory)
    assert first["messages"][0] == second["messages"][0] != other["messages"][0]


def test_conversations_of_others_have_their_own_pins() -> None:
    """`scope` is whose they are."""
    memory = Memory()
    mended(PIN, chat("Count: 1\nx", "hi"), memory=memory, scope=b"alice")
    assert mended(PIN, chat("Count: 2\nx", "hi"), memory=memory, scope=b"bob") == chat("Count: 2\nx", "hi")


def test_a_line_that_comes_or_goes_is_left_alone() -> None:
    """A pin replaces a line by a line."""
    memory = Memory()
    mended(PIN, chat("Count: 1\nx", "hi"), memory=memory)
    assert mended(PIN, chat("x", "hi"), memory=memory) == chat("x", "hi")
    assert mended(PIN, chat("Count: 2\nCount: 3\nx", "hi"), memory=memory) == chat("Count: 2\nCount: 3\nx", "hi")


def test_to_observe_changes_nothing_and_counts_what_it_would_spare() -> None:
    """The first turn has nothing to be compared with; the same line again costs nothing."""
    memory = Memory()
    for number in (1, 1, 2):
        body = chat(f"Count: {number}\n{LONG}", "hi")
        assert mended(rule("pin", mode="observe"), body, memory=memory) == body
    counts = memory.counts["r"]
    assert (counts.matched, counts.changed, counts.mended) == (3, 1, 0)
    assert len(LONG) // 4 <= counts.spared <= len(LONG) // 4 + 50


def test_a_new_conversation_would_have_been_spared_the_head() -> None:
    """Not its messages, which nobody has seen before."""
    memory = Memory()
    for number, text in ((1, "hi"), (2, "another " * 400)):
        mended(rule("drop", mode="observe"), chat(f"Count: {number}\n{LONG}", text), memory=memory)
    assert memory.counts["r"].spared == len("\n" + LONG) // 4


def test_to_move_a_line_spares_what_it_is_moved_over() -> None:
    """The messages after it are evaluated anew in any case."""
    memory = Memory()
    for number in (1, 2):
        mended(rule("move"), chat(f"Count: {number}\n{LONG}", "hi " * 900), memory=memory)
    assert memory.counts["r"] == MendCounts(matched=2, changed=1, mended=2, spared=len("\n" + LONG) // 4)


def tool(name: str, **more: Json) -> Json:
    return {"type": "function", "function": {"name": name, "parameters": {"b": 1.0, "a": {"z": 1, "y": 2}}}, **more}


@pytest.mark.parametrize(
    ("dialect", "one"),
    [
        ("chat", tool),
        ("anthropic", lambda name: {"name": name, "input_schema": {}}),
        ("responses", lambda name: {"type": "function", "name": name}),
    ],
)
def test_tools_are_sorted_by_name(dialect: Dialect, one: Any) -> None:
    """In each dialect; those without a name by their type."""
    body = {"tools": [one("write"), one("read"), {"type": "web_search"}], "messages": []}
    changed = mended(rule("sort_tools"), body, dialect=dialect)
    assert changed["tools"] == [one("read"), {"type": "web_search"}, one("write")]


def test_the_mark_of_the_last_tool_stays_with_the_last_one() -> None:
    """It says that a prefix ends with all of them."""
    body = {"tools": [{"name": "b"}, {"name": "a", "cache_control": {"type": "ephemeral"}}], "messages": []}
    changed = mended(rule("sort_tools"), body, dialect="anthropic")
    assert changed["tools"] == [{"name": "a"}, {"name": "b", "cache_control": {"type": "ephemeral"}}]


def test_tools_get_one_form() -> None:
    """Sorted keys at any depth; numbers as they were written."""
    body = Body(b'{"tools": [{"b": 1.0, "a": {"z": 12345678901234567890123, "y": 1e999}}], "messages": []}')
    mend(View("chat", body), (rule("canonical_tools"),), Memory(), b"")
    assert body.fields is not None
    assert bytes(body.fields["tools"]) == b'[{"a":{"y":1e999,"z":12345678901234567890123},"b":1.0}]'


def test_tools_in_another_order_would_cost_them_and_the_messages() -> None:
    """In the same conversation; tools that are others cost what they cost."""
    memory = Memory()
    messages = user("hi " * 400)
    for names in ("ab", "ba", "bc"):
        mended(
            rule("sort_tools", mode="observe"),
            {"tools": [tool(name) for name in names], "messages": messages},
            memory=memory,
        )
    counts = memory.counts["r"]
    size = len(json.dumps([tool("a"), tool("b")])) + len(json.dumps(messages))
    assert (counts.matched, counts.changed, counts.spared) == (3, 1, size // 4)


@pytest.mark.parametrize("tools", [5, [5], ["x"], [{"name": 5}], None, []])
def test_what_are_no_tools_stays(tools: Json) -> None:
    """The engine's error is better than ours."""
    for do in ("sort_tools", "canonical_tools"):
        body = {"tools": tools, "messages": []}
        assert mended(rule(do), body) == body


def test_a_body_without_changes_is_the_same_object() -> None:
    """It is not written again."""
    opened = Body(json.dumps(chat("a", "hi")).encode())
    mend(View("chat", opened), (rule("drop"), rule("sort_tools")), Memory(), b"")
    assert opened.written() is opened.raw


def test_the_memory_is_bounded() -> None:
    """The oldest conversation goes first."""
    memory = Memory(most=10)
    for number in range(50):
        mended(PIN, chat("Count: 1\nx", f"hi {number}"), memory=memory)
    assert (len(memory.pins), len(memory.values) <= 10) == (10, True)


def shipped(sent: Sent, memory: Memory) -> Json:
    """What the shipped rules make of a request, all of them on."""
    seen = Rules(Clients(stabilize_mode="on")).look(sent.agent.encode(), sent.path)
    opened = Body(sent.raw)
    view = View(sent.dialect, opened)
    mend(view, find(seen, sent.fields, view).mend, memory, b"")
    return json.loads(opened.written())


def claude_code(number: str, *, day: str = "2026-11-29", tools: str = "ab") -> Sent:
    names = [{"name": name, "input_schema": {}} for name in tools]
    env = f"Instructions.\n<env>\nPlatform: linux\nToday's date: {day}\n</env>\nMore."
    return Sent(
        agent="claude-cli/2.1.202", path=MESSAGES, body=claude(*user("hi"), number=number, system=[env], tools=names)
    )


def test_claude_codes_requests_are_the_same_whatever_it_signs() -> None:
    """Its billing line goes, its date stays, its tools have one order."""
    memory = Memory()
    first = shipped(claude_code("a1b"), memory)
    assert first == shipped(claude_code("7ff", day="2026-11-30", tools="ba"), memory)
    assert "billing" not in json.dumps(first)
    assert memory.counts["claude-code-billing"].mended == 2


def test_opencodes_date_stays_in_a_conversation() -> None:
    """It stands in the middle of its environment."""
    memory = Memory()

    def sent(day: str) -> Sent:
        return Sent(
            agent="opencode/1.18", body=chat(f"<env>\n  Platform: linux\n  Today's date: {day}\n</env>\nfiles", "hi")
        )

    assert shipped(sent("Sat Nov 28 2026"), memory) == shipped(sent("Sun Nov 29 2026"), memory)


def test_home_assistants_time_goes_to_the_end() -> None:
    """Its list of devices stays where it is found again."""
    sent = next(sent for sent in MAIN if sent.app == "home-assistant")
    assert shipped(sent, Memory())["messages"][0]["content"] == (
        "You are …\nCurrent time is 12:31:05. Today's date is 2026-11-29."
    )
