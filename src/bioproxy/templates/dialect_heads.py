"""What stands before the first user message, in the chat dialect whatever the client speaks.

A template is warmed behind the heads that clients really send (architecture decision 8), and the warm-up renders them
with `/apply-template`, which knows the chat dialect only. So heads of the other dialects are translated as llama-server
itself translates them before it renders (its server-chat.cpp):

* Anthropic: `system` (a string, or text blocks joined without anything between) becomes one system message;
  `input_schema` becomes `parameters`; the five changing letters of Claude Code's `cch=` are pinned to `fffff`.
* Responses: `instructions` becomes the first system message; flat function tools get their `function` envelope.

What does not shape the prompt stays out, or two equal prompts would look different: `cache_control` marks,
`response_format` (it becomes a grammar), sampling, token limits. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import Raw

from bioproxy.prompt import Head, Piece
from bioproxy.templates.bodies import MOST_PLACES, Dialect, Fields, Json, countable, few, string
from bioproxy.templates.messages import END, ITEMS, MESSAGES, Turn, part_text

# Further fields that templates (or the engine, when it picks one) look at.
SHAPING = (
    "reasoning_effort",
    "enable_thinking",
    "reasoning",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "documents",
    "chat_template",
)
MOST_SEAMS = 512  # system messages, or tools, whose ends are told apart
BILLING = re.compile(r"\A(x-anthropic-billing-header:[^\n]{0,500}?cch=)[^;\n]{5};")
CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def head_of(dialect: Dialect, fields: Fields, leading: Sequence[Turn]) -> Head:
    """The head of a conversation; `leading` are the turns before the first user message."""
    system, tools, choice = TRANSLATIONS[dialect](fields)
    messages: list[Json] = [*system, *(turn.json() for turn in leading)]
    extra: dict[str, Json] = {name: fields[name] for name in SHAPING if name in fields}
    if choice is not None:
        extra["tool_choice"] = choice
    return Head(
        messages=msgspec.json.encode(messages),
        tools=unmarked(tools),
        kwargs=value(fields, "chat_template_kwargs"),
        lora=value(fields, "lora"),
        extra=msgspec.json.encode(extra) if extra else b"",
    )


HEAD_PARTS = ("LoRA scales", "chat_template_kwargs", "reasoning options", "system message", "tools", "tools")


def part_of(piece: Piece, at: int) -> tuple[str, int]:
    """What stands at byte `at` of a piece, in words, and which byte of that it is: for a head, the part of it."""
    if piece.label != "head":
        return piece.label, at
    before = piece.data[:at]
    return HEAD_PARTS[min(before.count(END), len(HEAD_PARTS) - 1)], at - (before.rfind(END) + 1)


def head_piece(head: Head) -> Piece:
    """The head as the first piece of a prompt: what shapes everything first, then the messages, then the tools."""
    data = END.join((head.lora, head.kwargs, head.extra, head.messages, head.tools, b""))
    return Piece("head", data, seams=seams)


def seams(head: bytes) -> Iterator[int]:
    """Where the system messages and the tools end in a head's piece, one by one."""
    place = 0
    for part in head.split(END):
        try:
            items = few(ITEMS.decode(countable(part)))
        except msgspec.DecodeError:  # an object, or nothing
            items = []
        end = place
        for item in map(bytes, items[:MOST_SEAMS]):
            end = head.index(item, end) + len(item)
            yield end
        place += len(part) + 1


def value(fields: Fields, name: str) -> bytes:
    """A field's JSON; empty where it is missing or null."""
    raw = bytes(fields.get(name, Raw()))
    return b"" if raw == b"null" else raw


def unmarked(data: bytes) -> bytes:
    """JSON without `cache_control` at any depth; the same bytes if there is none, or too much to be worked through."""
    if b"cache_control" not in data or data.count(b",") > MOST_PLACES:
        return data
    return msgspec.json.encode(without_marks(msgspec.json.decode(data)))


def without_marks(data: Json) -> Json:
    """A JSON value without `cache_control` keys."""
    if isinstance(data, dict):
        return {key: without_marks(inner) for key, inner in data.items() if key != "cache_control"}
    if isinstance(data, list):
        return [without_marks(inner) for inner in data]
    return data


Translated = tuple[list[Json], bytes, str | None]  # system messages, tools, tool_choice where it is another


def chat(fields: Fields) -> Translated:
    """The chat dialect needs no translation."""
    return [], value(fields, "tools"), None


def anthropic(fields: Fields) -> Translated:
    """Anthropic's `system`, `tools` and `tool_choice`."""
    system = system_text(fields["system"]) if "system" in fields else ""
    messages = [{"role": "system", "content": system}] if value(fields, "system") else []
    choice = None
    if "tool_choice" in fields:
        asked = msgspec.json.decode(fields["tool_choice"])
        choice = CHOICES.get(str(asked.get("type"))) if isinstance(asked, dict) else None
    return messages, translated(fields, anthropic_tool), choice


def responses(fields: Fields) -> Translated:
    """The Responses API's `instructions` and flat tools."""
    raw = value(fields, "instructions")
    messages = [{"role": "system", "content": Raw(raw)}] if raw else []
    return messages, translated(fields, responses_tool), None


TRANSLATIONS: dict[Dialect, Callable[[Fields], Translated]] = {
    "chat": chat,
    "anthropic": anthropic,
    "responses": responses,
}


def system_text(raw: Raw) -> str:
    """Anthropic's system prompt as the one text that llama-server makes of it."""
    try:
        texts = [part_text(block) or "" for block in few(MESSAGES.decode(countable(raw)))]
    except msgspec.ValidationError:
        texts = [string(raw)]
    return "".join(BILLING.sub(r"\g<1>fffff;", text) for text in texts)


def translated(fields: Fields, one: Callable[[Fields], Json]) -> bytes:
    """The tools in the chat dialect; as they came where they are no list of objects."""
    raw = value(fields, "tools")
    if not raw:
        return b""
    try:
        return msgspec.json.encode([one(tool) for tool in few(MESSAGES.decode(countable(raw)))])
    except msgspec.ValidationError:
        return raw


def anthropic_tool(tool: Fields) -> Json:
    """One tool of Anthropic's as llama-server hands it to a chat template."""
    function: dict[str, Json] = {"name": tool.get("name", ""), "description": tool.get("description", "")}
    return {"type": "function", "function": function | {"parameters": tool.get("input_schema", {})}}


def responses_tool(tool: Fields) -> Json:
    """One function tool of the Responses API; other kinds as they came."""
    if bytes(tool.get("type", Raw())) != b'"function"':
        return tool
    function: dict[str, Json] = {name: raw for name, raw in tool.items() if name != "type"}
    return {"type": "function", "function": function if "strict" in function else function | {"strict": True}}
