"""A body as rules look at it: roles, the texts of its system message, first and last user message, in each dialect.

What a rule asks for is opened when it asks, and once: most rules are settled by a header. Of a conversation only the
messages before the first user message are opened, the first user message and the last one.

| dialect   | system texts                                   | conversation |
|-----------|------------------------------------------------|--------------|
| chat      | leading messages of role system or developer   | `messages`   |
| anthropic | `system`: a string, or text blocks             | `messages`   |
| responses | `instructions`, then leading items as in chat  | `input`      |

A body that cannot be read that far has no such texts, and no rule that asks for one is for it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON
from bioproxy.templates.bodies import FIELDS, Body, Dialect, Fields, Json, countable, few, string
from bioproxy.templates.messages import CONTENT, ITEMS, KEYS, MESSAGES, Turn, full_turn, part_text, with_text

T = TypeVar("T")
APART: Mapping[Dialect, str] = {"anthropic": "system", "responses": "instructions"}
SYSTEM = frozenset({"system", "developer"})
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
NOTHING = frozenset({b"", b"null", b"[]"})


class Place(NamedTuple):
    """Where a text stands: the field, the item of its list (-1: the field is the content), the part of the content."""

    key: str
    item: int
    part: int


class Speaker(msgspec.Struct):
    """Who says a message; items of the Responses API may have a type only."""

    role: str = ""
    type: str = ""


SPEAKER = msgspec.json.Decoder(Speaker)
NOBODY = Speaker()
ESCAPED = frozenset('"\\/\n\t')  # what may stand in JSON in other letters
NUMBER = msgspec.json.Decoder(int)


def readable(read: Callable[[], T], otherwise: T) -> T:
    """What `read` finds; `otherwise` in a body that cannot be read that far."""
    try:
        return read()
    except NOT_JSON:
        return otherwise


class View:
    """One body, opened as far as rules ask."""

    def __init__(self, dialect: Dialect, body: Body) -> None:
        self.dialect = dialect
        self.body = body
        self.fields: Fields = body.fields or {}

    def raw(self, key: str) -> bytes:
        """A field's JSON; empty if it is missing."""
        return bytes(self.fields.get(key, b""))

    @cached_property
    def items(self) -> list[Raw]:
        """The messages as they came."""
        key = KEYS[self.dialect]
        if key not in self.fields or self.dialect == "completion":
            return []
        return readable(lambda: few(ITEMS.decode(countable(self.fields[key]))), [])

    def speaker(self, number: int) -> str:
        """Who says a message: its role, or its type if it is an item without one."""
        found = readable(lambda: SPEAKER.decode(self.items[number]), NOBODY)
        return "system" if found.role in SYSTEM else found.role or found.type

    @property
    def bare(self) -> bool:
        """Whether the conversation is a text alone, which a user says."""
        return self.dialect == "responses" and self.raw("input")[:1] == b'"'

    @property
    def roles(self) -> str:
        """The roles of all that makes the prompt, for a pattern: `system user assistant user`."""
        apart = self.dialect in APART and self.raw(APART[self.dialect]) not in NOTHING
        speakers = ["user"] if self.bare else map(self.speaker, range(len(self.items)))
        return " ".join((*(["system"] if apart else ()), *speakers))

    @cached_property
    def system(self) -> dict[Place, str]:
        """The system texts, in the order of the prompt."""
        found = dict[Place, str]()
        key = APART.get(self.dialect)
        if key is not None and key in self.fields:
            found |= readable(lambda: self.content(key), dict[Place, str]())
        numbers = range(0 if self.dialect == "anthropic" else len(self.items))
        for number in takewhile(lambda one: self.speaker(one) == "system", numbers):
            found |= {Place(KEYS[self.dialect], number, part): text for part, text in self.texts(number)}
        return found

    def content(self, key: str) -> dict[Place, str]:
        """The texts of a field that is a content itself."""
        content = CONTENT.decode(countable(self.fields[key]))
        if isinstance(content, str):
            return {Place(key, -1, 0): content}
        texts = ((part, part_text(one)) for part, one in enumerate(few(content or [])))
        return {Place(key, -1, part): text for part, text in texts if text is not None}

    def turn(self, number: int) -> Turn:
        """One message; without a content if it cannot be read."""
        return readable(lambda: full_turn(FIELDS.decode(countable(self.items[number]))), Turn())

    def texts(self, number: int) -> Sequence[tuple[int, str]]:
        """The texts of one message; none if one of them is no UTF-8, which shows only when it is read."""
        return readable(lambda: self.turn(number).texts(), [])

    @cached_property
    def first(self) -> Sequence[str]:
        """The texts of the first user message."""
        return self.said_by_user(range(len(self.items)))

    @cached_property
    def last(self) -> Sequence[str]:
        """The texts of the last user message."""
        return self.said_by_user(reversed(range(len(self.items))))

    def said_by_user(self, order: Iterable[int]) -> Sequence[str]:
        if self.bare:
            return readable(lambda: (string(self.fields["input"]),), ())
        place = next((number for number in order if self.speaker(number) == "user"), None)
        return () if place is None else [text for _, text in self.texts(place)]

    def may_have(self, piece: str, *, system: bool) -> bool:
        """Whether the body (its `system` texts) may have a text at all, as a search tells at once; in doubt yes."""
        raw = self.raw("system") if system and self.dialect == "anthropic" else self.body.raw
        return not piece.isascii() or not ESCAPED.isdisjoint(piece) or piece.encode() in raw

    @property
    def tools(self) -> bool:
        """Whether it offers tools."""
        return self.raw("tools") not in NOTHING

    @property
    def most(self) -> int | None:
        """How many tokens it wants at most; None if it does not say."""
        found = next((self.fields[name] for name in LIMITS if name in self.fields), None)
        return readable(lambda: NUMBER.decode(found), None) if found is not None else None

    def write(self, changes: Mapping[Place, str]) -> None:
        """Put other texts in their places; all else stays the bytes that came."""
        for key in {place.key for place in changes}:
            texts = {place: text for place, text in changes.items() if place.key == key}
            self.fields[key] = Raw(msgspec.json.encode(self.written(key, texts)))
        self.body.changed = True
        self.__dict__.pop("items", None)
        self.__dict__.pop("system", None)

    def written(self, key: str, texts: Mapping[Place, str]) -> Json:
        """A field with other texts in it."""
        if key == APART.get(self.dialect):
            if self.raw(key)[:1] == b'"':
                return next(iter(texts.values()))
            blocks: list[Json] = list(MESSAGES.decode(self.fields[key]))
            for place, text in texts.items():
                blocks[place.part] = blocks[place.part] | {"text": text}
            return blocks
        items: list[Json] = list(self.items)
        for place, text in texts.items():
            item = items[place.item]
            items[place.item] = with_text(
                item if isinstance(item, Raw) else Raw(msgspec.json.encode(item)), place.part, text
            )
        return items
