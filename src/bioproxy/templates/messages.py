"""Conversations inside bodies: one view of the messages of four dialects, and their normal form.

| dialect    | where the turns stand            | a turn's text                                             |
|------------|----------------------------------|-----------------------------------------------------------|
| chat       | `messages`                       | `content`: a string, or parts of type `text`              |
| anthropic  | `messages` (`system` apart)      | the same                                                  |
| responses  | `input`: a string or items       | the same; parts are of type `input_text`, `output_text`   |
| completion | `prompt`: a string or a list     | the string itself; token ids are left alone               |

The normal form is what the chain of hashes sees (kv-rule 19), so it must not change where the prompt does not: clients
move `cache_control` marks from turn to turn and send the same text now as a string, now as one part. And it must change
where the prompt does: role first, then the texts in order, then every other field as it came. Byte 0xFF ends a text; it
stands in no UTF-8, so no text can look like the end of another one. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.templates.bodies import TEXT, Dialect, Fields, Json

Parts: TypeAlias = list[Fields]
Content: TypeAlias = str | Parts | Raw | None  # Raw: something that is no content we know

END = b"\xff"
MESSAGES = msgspec.json.Decoder(list[Fields])
CONTENT = msgspec.json.Decoder(str | Parts | None)
ITEMS = msgspec.json.Decoder(list[Raw])
INPUT = msgspec.json.Decoder(str | Parts)

TEXT_TYPES = frozenset({b'"text"', b'"input_text"', b'"output_text"'})
KEYS: dict[Dialect, str] = {"chat": "messages", "anthropic": "messages", "responses": "input", "completion": "prompt"}
ANSWERS = frozenset({"assistant", "function_call", "reasoning", "custom_tool_call"})  # what only an engine says
UNSEEN = frozenset({"role", "content", "cache_control"})  # never part of `rest`
UNSEEN_ITEM = UNSEEN | {"id", "status"}  # fields of Responses items that the prompt does not show


class Turn:
    """One message: its role, its content, and the other fields that shape the prompt, as they came."""

    __slots__ = ("content", "fields", "role", "unseen")

    def __init__(self, fields: Fields, *, unseen: frozenset[str] = UNSEEN) -> None:
        role = fields.get("role") or fields.get("type")  # items of the Responses API may have a type only
        self.role = "" if role is None else plain(role)
        self.fields = fields
        self.unseen = unseen
        self.content: Content = None
        raw = fields.get("content")
        if raw is not None:
            try:
                self.content = CONTENT.decode(raw)
            except msgspec.ValidationError:
                self.content = raw

    @classmethod
    def of_text(cls, text: str, *, role: str = "user") -> Turn:
        """A turn that came as a bare string."""
        turn = cls({})
        turn.role, turn.content = role, text
        return turn

    def texts(self) -> Iterator[tuple[int, str]]:
        """The text parts with their places; a string is one part at place 0."""
        if isinstance(self.content, str):
            yield 0, self.content
        elif isinstance(self.content, list):
            for place, part in enumerate(self.content):
                if (text := part_text(part)) is not None:
                    yield place, text

    def normal(self, *, place: int = -1, text: str = "") -> tuple[bytes, int]:
        """The normal form, with `text` as the text part at `place`; and the offset at which that part begins."""
        pieces = [self.role.encode(), END]
        offset = 0
        for index, part in enumerate(self.parts()):
            if index == place:
                offset = sum(map(len, pieces))
                pieces.append(text.encode())
            else:
                pieces.append(part.encode() if isinstance(part, str) else part)
            pieces.append(END)
        pieces.extend(self.rest())
        pieces.append(END)
        return b"".join(pieces), offset

    def parts(self) -> Iterator[str | bytes]:
        """The content in order: texts as text, everything else as JSON."""
        content = self.content
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            for part in content:
                text = part_text(part)
                yield json_of(part, frozenset({"cache_control"})) if text is None else text
        elif content is not None:
            yield bytes(content)

    def rest(self) -> Iterator[bytes]:
        """The other fields, in the order of their names."""
        for name in sorted(self.fields.keys() - self.unseen):
            yield b'"%s":%s' % (name.encode(), bytes(self.fields[name]))

    def rewritten(self, place: int, text: str) -> Json:
        """The message with `text` as the text part at `place`; everything else as it came."""
        if not isinstance(self.content, list):
            return self.fields | {"content": text}
        parts: list[Json] = list(self.content)
        parts[place] = parts[place] | {"text": text}
        return self.fields | {"content": parts}


def plain(raw: Raw) -> str:
    """The text of a short JSON string; what is no string as JSON."""
    try:
        return TEXT.decode(raw)
    except msgspec.ValidationError:
        return bytes(raw).decode()


def part_text(part: Fields) -> str | None:
    """The text of a content part; None where it is an image, a tool's result or the like."""
    kind, text = part.get("type"), part.get("text")
    if kind is None or text is None or bytes(kind) not in TEXT_TYPES:
        return None
    try:
        return TEXT.decode(text)
    except msgspec.ValidationError:
        return None


def json_of(fields: Fields, without: frozenset[str]) -> bytes:
    """An object as JSON, less the keys in `without`; values as they came."""
    return msgspec.json.encode({key: value for key, value in fields.items() if key not in without})


def turns_of(dialect: Dialect, fields: Fields) -> list[Turn] | None:
    """The turns of a conversation; None where the body holds nothing that we know as one.

    Raises what msgspec raises where a text cannot be read (lone surrogates, no UTF-8).
    """
    raw = fields.get(KEYS[dialect])
    if raw is None:
        return None
    try:
        if dialect != "responses":
            return [Turn(message) for message in MESSAGES.decode(raw)]
        found = INPUT.decode(raw)
    except msgspec.ValidationError:
        return None
    if isinstance(found, str):
        return [Turn.of_text(found)]
    return [Turn(item, unseen=UNSEEN_ITEM) for item in found]


def rewritten(dialect: Dialect, fields: Fields, changes: dict[int, Json]) -> dict[str, Json]:
    """The top-level changes that put `changes` (place of a turn to its new JSON) into a conversation."""
    key = KEYS[dialect]
    try:
        items: list[Json] = list(ITEMS.decode(fields[key]))
    except msgspec.ValidationError:  # a bare string: one turn, one change
        return {key: changes[0]}
    for place, value in changes.items():
        items[place] = value
    return {key: items}
