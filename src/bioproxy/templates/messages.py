"""Conversations inside bodies: one view of the messages of four dialects, and their normal form.

| dialect    | where the turns stand            | a turn's text                                             |
|------------|----------------------------------|-----------------------------------------------------------|
| chat       | `messages`                       | `content`: a string, or parts of type `text`              |
| anthropic  | `messages` (`system` apart)      | the same                                                  |
| responses  | `input`: a string or items       | the same; parts are of type `input_text`, `output_text`   |
| completion | `prompt`: a string or a list     | the string itself; token ids are left alone               |

The normal form is what the chain of hashes sees (kv-rule 19), so it must not change if the prompt does not: clients
move `cache_control` marks from turn to turn and send the same text now as a string, now as one part. And it must change
if the prompt does: role first, then the texts in order, then every other field as it came. Byte 0xFF ends a text; it
stands in no UTF-8, so no text can look like the end of another one. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.templates.bodies import FIELDS, MOST_PLACES, TEXT, Dialect, Fields, Json, countable, few, string

Parts: TypeAlias = list[Fields]

END = b"\xff"
TEXT_TYPES = frozenset({b'"text"', b'"input_text"', b'"output_text"'})
MEDIA_TYPES = frozenset({b'"image_url"', b'"input_image"', b'"image"', b'"input_audio"'})
LONGEST_LINK = 1024  # bytes; what is longer holds the image itself
KEYS: dict[Dialect, str] = {"chat": "messages", "anthropic": "messages", "responses": "input", "completion": "prompt"}
ANSWERS = frozenset({"assistant", "function_call", "reasoning", "custom_tool_call"})  # what only an engine says
MARKS = frozenset({"cache_control"})  # what clients move about and prompts do not show
UNSEEN = MARKS | {"role", "content"}  # never among the other fields
UNSEEN_ITEM = UNSEEN | {"id", "status"}  # nor are these of Responses items, nor `"type": "message"`


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One message that is a role and a content, as most are; decoded straight from the body."""

    role: str = ""
    content: str | Parts | None = None

    def texts(self) -> list[tuple[int, str]]:
        """The text parts with their places; a string is one part at place 0."""
        if isinstance(self.content, str):
            return [(0, self.content)]
        found = ((place, part_text(part)) for place, part in enumerate(self.content or ()))
        return [(place, text) for place, text in found if text is not None]

    def normal(self) -> bytes:
        """The normal form of the message as it came."""
        if type(self) is Turn and isinstance(self.content, str):  # as most are
            return b"%b\xff%b\xff\xff" % (self.role.encode(), self.content.encode())
        return self.filled(-1, "")[0]

    def filled(self, place: int, text: str) -> tuple[bytes, int]:
        """The normal form with `text` as the text part at `place`, and the offset at which that part begins."""
        row, offset = [self.role.encode(), END], 0
        parts: Sequence[str | Fields] = [self.content] if isinstance(self.content, str) else self.content or ()
        for index, part in enumerate(parts):
            if index == place:
                offset = sum(map(len, row))
            row += (text.encode() if index == place else part_data(part), END)
        row += (self.others(), END)
        return b"".join(row), offset

    def others(self) -> bytes:
        """The other fields that shape the prompt."""
        return b""

    def json(self) -> Json:
        """The message as JSON in the chat dialect, for a head; the same for a Turn and a FullTurn that say the same."""
        content = self.content
        return {"role": self.role, "content": list(map(part_json, content)) if isinstance(content, list) else content}


class FullTurn(Turn):
    """A message with more fields than role and content: tool calls, names, reasoning; or an item of another type."""

    fields: Fields = {}
    unseen: frozenset[str] = UNSEEN

    def rest(self) -> dict[str, Json]:
        """The other fields as they came, in the order of their names."""
        rest: dict[str, Json] = {name: self.fields[name] for name in sorted(self.fields.keys() - self.unseen)}
        if self.content is None and bytes(self.fields.get("content", Raw())) not in {b"", b"null"}:
            rest["content"] = self.fields["content"]  # no content that we know
        return rest

    def others(self) -> bytes:
        """The other fields that shape the prompt."""
        return msgspec.json.encode(rest) if (rest := self.rest()) else b""

    def json(self) -> Json:
        return super().json() | self.rest()


MESSAGES = msgspec.json.Decoder(list[Fields])
TURNS = msgspec.json.Decoder(list[Turn])
CONTENT = msgspec.json.Decoder(str | Parts | None)
ITEMS = msgspec.json.Decoder(list[Raw])
INPUT = msgspec.json.Decoder(str | Parts)


def full_turn(fields: Fields, *, unseen: frozenset[str] = UNSEEN) -> FullTurn:
    role = fields.get("role") or fields.get("type")  # items of the Responses API may have a type only
    if unseen is UNSEEN_ITEM and "role" in fields:
        unseen |= {"type"}
    content: str | Parts | None = None
    if "content" in fields:
        with suppress(msgspec.ValidationError):
            content = CONTENT.decode(fields["content"])
    return FullTurn(role="" if role is None else string(role), content=content, fields=fields, unseen=unseen)


def part_text(part: Fields) -> str | None:
    """The text of a content part; None if it is an image, a tool's result or the like."""
    kind, text = part.get("type"), part.get("text")
    if kind is None or text is None or bytes(kind) not in TEXT_TYPES:
        return None
    try:
        return TEXT.decode(text)
    except msgspec.ValidationError:
        return None


def part_data(part: str | Fields) -> bytes:
    """A content part's normal form: a text as text, everything else as JSON with its values as they came.

    An image's or a sound's bytes are named by their digest: another image never shares a part of them,
    and beside a million letters that stand for some hundred tokens all that is text would count for nothing.
    """
    text = part if isinstance(part, str) else part_text(part)
    if text is not None:
        return text.encode()
    assert isinstance(part, dict)
    data = msgspec.json.encode(part_json(part))
    if len(data) > LONGEST_LINK and bytes(part.get("type", Raw())) in MEDIA_TYPES:
        return b"media " + hashlib.sha256(data).hexdigest().encode()
    return data


def part_json(part: Fields) -> Json:
    """A content part in the chat dialect, in which the type of a text is `text`."""
    text = part_text(part)
    kept: dict[str, Json] = {key: value for key, value in part.items() if key not in MARKS}
    return kept if text is None else kept | {"type": "text", "text": text}


def turns_of(dialect: Dialect, fields: Fields) -> Sequence[Turn] | None:
    """The turns of a conversation; None if the body holds nothing that we know as one.

    Raises what msgspec raises if a text cannot be read (lone surrogates, no UTF-8), or for more messages, parts and
    fields than a conversation has.
    """
    if KEYS[dialect] not in fields:
        return None
    raw = countable(fields[KEYS[dialect]])
    try:
        turns: Sequence[Turn] = TURNS.decode(raw)
    except msgspec.ValidationError:
        try:
            found = INPUT.decode(raw)
        except msgspec.ValidationError:
            return None
        if isinstance(found, str):
            return [Turn("user", found)] if dialect == "responses" else None
        unseen = UNSEEN_ITEM if dialect == "responses" else UNSEEN
        turns = [full_turn(item, unseen=unseen) for item in few(found)]
    return turns if len(raw) <= MOST_PLACES else bounded(turns)  # no more places than bytes


def bounded(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The turns, if all their parts and fields are few enough to be worked through; else msgspec.ValidationError."""
    left = MOST_PLACES - len(few(turns))
    for turn in turns:
        left -= len(turn.fields) if isinstance(turn, FullTurn) else 0
        left -= len(turn.content) + sum(map(len, turn.content)) if isinstance(turn.content, list) else 0
        if left < 0:
            raise msgspec.ValidationError(f"more than {MOST_PLACES} messages, parts and fields")
    return turns


def rewritten(dialect: Dialect, fields: Fields, changes: dict[int, tuple[int, str]]) -> dict[str, Json]:
    """The top-level change that puts new texts into a conversation: by place of the message, (place of the part, text).

    Messages without a change stay the bytes that came, and so do all other values in a message that has one.
    """
    key = KEYS[dialect]
    try:
        items: list[Json] = list(ITEMS.decode(fields[key]))
    except msgspec.ValidationError:  # a bare string: one turn, one change
        return {key: changes[0][1]}
    for place, (at, text) in changes.items():
        items[place] = with_text(items[place], at, text)
    return {key: items}


def with_text(item: Raw, at: int, text: str) -> Json:
    """A message (or a prompt that is a string) with `text` as the text part at `at`."""
    try:
        fields = FIELDS.decode(item)
    except msgspec.ValidationError:
        return text
    content = CONTENT.decode(fields["content"])
    if not isinstance(content, list):
        return fields | {"content": text}
    parts: list[Json] = list(ITEMS.decode(fields["content"]))
    parts[at] = content[at] | {"text": text}
    return fields | {"content": parts}
