"""The beginning of a prompt that ends at a breakpoint, so that its last token can be found.

Where it ends in tokens only the engine can tell: it renders two conversations that are the same up to the breakpoint
and differ in the character after it, and what they have in common is exact (kv-rule 12). It renders the chat dialect
alone, so messages of the other two are translated as llama-server translates them itself. What that does with images,
files and calls in a Responses input depends on its build and model: a breakpoint after one of those is not cut, and
what stands before it is kept with the conversation. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON
from bioproxy.front.caching.fields import LAST, Form
from bioproxy.prompt import Head
from bioproxy.templates.bodies import Fields
from bioproxy.templates.messages import ITEMS, KEYS
from bioproxy.warmup.prefix import FIRST_MESSAGE, SECOND_MESSAGE, chat

Json: TypeAlias = Any
TEXTS = frozenset({"text", "input_text", "output_text"})
ROLES = frozenset({"user", "assistant", "system", "developer"})


class Unclear(Exception):
    """How the engine renders this is not known."""


def head_bodies(head: Head) -> tuple[bytes, bytes]:
    """Two chats that have only their head in common."""
    return chat(head, FIRST_MESSAGE), chat(head, SECOND_MESSAGE)


def bodies(form: Form, fields: Fields, head: Head, *, first: int, item: int, part: int) -> tuple[bytes, bytes] | None:
    """Two chats that differ after a part of the message `item`; None if that can't be told.

    `first`: the place of the first message that is no part of the `head`.
    """
    try:
        items = ITEMS.decode(fields[KEYS[form]])[first : item + 1]
        messages = [msgspec.json.decode(one, type=dict[str, Json]) for one in items]
        before = [said for message in messages[:-1] for said in translated(form, message)]
        row = translated(form, cut(messages[-1], part))
        ends = [ended(row, word) for word in (FIRST_MESSAGE, SECOND_MESSAGE)]
    except (*NOT_JSON, Unclear, IndexError, KeyError):
        return None
    return one_body(head, [*before, *ends[0]]), one_body(head, [*before, *ends[1]])


def one_body(head: Head, messages: Sequence[Json]) -> bytes:
    """A chat with this head."""
    fields = msgspec.json.decode(chat(head, ""), type=dict[str, Raw])
    leading = msgspec.json.decode(head.messages or b"[]", type=list[Raw])
    return msgspec.json.encode(fields | {"messages": [*leading, *messages]})


def cut(message: dict[str, Json], part: int) -> dict[str, Json]:
    """A message up to one of its parts."""
    content = message.get("content")
    if part == LAST or not isinstance(content, list):
        return message
    left = content[part + 1 :]
    if content[part].get("type") == "tool_result" and any(one.get("type") != "tool_result" for one in left):
        raise Unclear  # llama-server puts the texts of a message before its results
    return message | {"content": content[: part + 1]}


def translated(form: Form, message: dict[str, Json]) -> list[dict[str, Json]]:
    """A message as one or more of a chat."""
    content = message.get("content")
    if message.get("role") == "tool" and form == "chat" and isinstance(content, str):
        return [message]
    if message.get("role") not in ROLES:
        raise Unclear
    if not isinstance(content, list):
        if content is not None and not isinstance(content, str):
            raise Unclear
        return [message]
    if form == "anthropic":
        return from_blocks(str(message["role"]), content)
    if any(one.get("type") not in TEXTS for one in content):
        raise Unclear
    texts = [{"type": "text", "text": one["text"]} for one in content]
    return [{**message, "content": texts} if form == "chat" else {"role": message["role"], "content": texts}]


def from_blocks(role: str, blocks: Sequence[dict[str, Json]]) -> list[dict[str, Json]]:
    """Anthropic's blocks: texts and calls are one message, each result of a tool is one of its own after that."""
    texts, calls, results, thought = list[Json](), list[Json](), list[Json](), ""
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            texts.append({"type": "text", "text": block["text"]})
        elif kind == "thinking":
            thought += block["thinking"]
        elif kind == "tool_use":
            given = msgspec.json.encode(block.get("input", {})).decode()
            calls.append(
                {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": given}}
            )
        elif kind == "tool_result":
            results.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": result_of(block)})
        else:
            raise Unclear
    said: dict[str, Json] = {"role": role, "content": texts or ""}
    said |= {"tool_calls": calls} if calls else {}
    said |= {"reasoning_content": thought} if thought else {}
    return [*([said] if texts or calls or thought else []), *results]


def result_of(block: dict[str, Json]) -> str:
    """The text of a tool's result."""
    content = block.get("content") or ""
    if isinstance(content, str):
        return content
    if any(one.get("type") != "text" for one in content):
        raise Unclear
    return "".join(one["text"] for one in content)


def ended(messages: Sequence[dict[str, Json]], word: str) -> list[dict[str, Json]]:
    """The messages with `word` right after their last text."""
    *before, last = messages
    content = last.get("content")
    if last.get("tool_calls") or not content:
        raise Unclear  # what comes after it is no text of ours
    if isinstance(content, str):
        return [*before, last | {"content": content + word}]
    *parts, end = content
    return [*before, last | {"content": [*parts, end | {"text": end["text"] + word}]}]
