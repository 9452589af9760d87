"""What a prompt is made of, one by one: system messages, tools, messages; and where two of a kind first differ.

A prompt comes as pieces in normal form (templates/messages.py): a role and texts between 0xFF, and a head whose system
messages and tools are JSON. People think in messages and tools, and in the text that their client sent: so a head is
taken apart here, JSON strings are decoded, and a place is counted in characters of one such text.

Nothing here is on a request's way. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

import msgspec

from bioproxy.activity import Place
from bioproxy.errors import NOT_JSON
from bioproxy.prompt import Piece, common
from bioproxy.templates.bodies import countable, few
from bioproxy.templates.messages import END, ITEMS

Json: TypeAlias = Any
Kind = Literal["lora", "system", "tool", "message", "prompt"]

SAME, SHOWN = 16, 24  # characters before a difference that are shown, and after it: forty in all
OPENING = "opening message"  # of another role than system, before the first user message
SYSTEM_ROLES = frozenset({"system", "developer"})


class Unit(msgspec.Struct, frozen=True):
    """One thing that a prompt is made of: its name for people, and its normal form. Equal units render alike."""

    kind: Kind
    label: str
    data: bytes


def units(pieces: Sequence[Piece]) -> list[Unit]:
    """The units of a prompt, in the order of its normal form."""
    found: list[Unit] = []
    for piece in pieces:
        if piece.label == "head":
            found += head_units(piece.data)
        elif piece.label == "prompt":  # of a completion: the scales stand before it
            scales, _, text = piece.data.partition(END)
            found += [Unit("lora", "LoRA scales", scales.removeprefix(b"prompt")), Unit("prompt", "prompt", text)]
        else:
            found.append(Unit("message", piece.label, piece.data))
    return found


def head_units(data: bytes) -> list[Unit]:
    """LoRA scales, the messages before the first user's, and the tools (templates.dialect_heads.head_piece)."""
    lora, _, _, messages, tools, _ = data.split(END)
    found = [Unit("lora", "LoRA scales", lora)]
    roles: dict[str, int] = {}
    for item in items(messages):
        role = str(known.get("role")) if isinstance(known := json_of(item), dict) else ""
        roles[role] = number = roles.get(role, 0) + 1
        name = OPENING if role not in SYSTEM_ROLES else f"{role} message"
        system: Kind = "system" if role in SYSTEM_ROLES else "message"
        found.append(Unit(system, name if number == 1 else f"{name} {number}", item))
    found += [Unit("tool", f'tool "{tool_name(item)}"', item) for item in items(tools)]
    return found


def items(array: bytes) -> list[bytes]:
    """The members of a JSON array, as they are written; all of it as one if it is none, or has too many."""
    if array in {b"", b"[]"}:
        return []
    try:
        return list(map(bytes, few(ITEMS.decode(countable(array)))))
    except NOT_JSON:
        return [array]


def tool_name(item: bytes) -> str:
    """A tool's name in the chat dialect, in which heads are."""
    found = json_of(item)
    function = found.get("function", found) if isinstance(found, dict) else {}
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def json_of(data: bytes) -> Json:
    """A value from its JSON; None if it is none."""
    try:
        return msgspec.json.decode(data)
    except NOT_JSON:
        return None


# where two units differ


def place_of(earlier: Unit | None, later: Unit | None) -> Place:
    """Where two units first differ; None is one that is not there. The label is that of what the client sends now."""
    known = later or earlier
    assert known is not None
    if earlier is None or later is None:
        text = whole(known)
        return shown(known.label, "", text if later is None else "", text if earlier is None else "")
    if known.kind in {"system", "tool"} or known.label.startswith(OPENING):
        return inside(known.label, json_of(earlier.data), json_of(later.data))
    if known.kind != "message":
        return of_text(known.label, "", earlier.data, later.data)
    for path, one, other in fields(earlier.data, later.data):
        if one != other:
            was, now = json_of(one), json_of(other)
            if isinstance(was, dict) and isinstance(now, dict) and (not path or ("type" in was and "type" in now)):
                return inside(known.label, was, now, path)  # no text but a part of another kind, or further fields
            return of_text(known.label, path, one, other)
    return Place(known.label)


def whole(unit: Unit) -> str:
    """The beginning of a unit's text."""
    if unit.kind == "message" and not unit.label.startswith(OPENING):
        texts = unit.data.split(END)[1:]
        return next(filter(None, texts), b"")[: 4 * SHOWN].decode(errors="ignore")
    found = json_of(unit.data)
    content = found.get("content") if isinstance(found, dict) else None
    return content if isinstance(content, str) else unit.data[: 4 * SHOWN].decode(errors="ignore")


def fields(earlier: bytes, later: bytes) -> Iterable[tuple[str, bytes, bytes]]:
    """The role, the parts of the content, and the other fields of two messages in normal form, side by side.

    The last part stands beside the last: a message that got a further part differs in that part.
    """
    one, other = earlier.split(END), later.split(END)
    yield "role", one[0], other[0]
    parts, now = one[1:-2], other[1:-2]
    for number in range(max(len(parts), len(now))):
        path = "content" if len(now) < 2 else f"content[{number}]"
        yield path, parts[number] if number < len(parts) else b"", now[number] if number < len(now) else b""
    yield "", one[-2] if len(one) > 2 else b"", other[-2] if len(other) > 2 else b""


def inside(label: str, one: Json, other: Json, path: str = "") -> Place:
    """Where two JSON values first differ, in the order of the later one's keys; strings are compared as texts."""
    while True:
        if isinstance(one, dict) and isinstance(other, dict):
            keys: Iterable[Json] = chain(other, (name for name in one if name not in other))
            step = next((key for key in keys if one.get(key) != other.get(key)), None)
            if step is None:
                return Place(label, path)  # the same values, written otherwise
            one, other, path = one.get(step), other.get(step), f"{path}.{step}" if path else str(step)
        elif isinstance(one, list) and isinstance(other, list):
            pairs = zip(one, other, strict=False)
            step = next((at for at, (was, now) in enumerate(pairs) if was != now), min(len(one), len(other)))
            if step >= max(len(one), len(other)):
                return Place(label, path)
            one, other = (values[step] if step < len(values) else None for values in (one, other))
            path = f"{path}[{step}]"
        else:
            return shown(label, path, text_of(one), text_of(other))


def text_of(value: Json) -> str:
    """A JSON value as a text: a string as it is, nothing for null."""
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


def of_text(label: str, path: str, one: bytes, other: bytes) -> Place:
    """Where two texts differ, without decoding more of them than what stands before that place."""
    at = common(one, other)
    before = other[:at].decode(errors="ignore")  # a character that is cut in two is one that differs
    start = len(before.encode())
    was, now = (text[start : start + 4 * SHOWN].decode(errors="ignore")[:SHOWN] for text in (one, other))
    return Place(label, path, len(before), before[-SAME:], was, now)


def shown(label: str, path: str, one: str, other: str) -> Place:
    at = common(one, other)
    return Place(label, path, at, other[max(0, at - SAME) : at], one[at : at + SHOWN], other[at : at + SHOWN])
