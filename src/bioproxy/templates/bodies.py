"""Opening a request body without rebuilding it.

Only the top level of the JSON object is opened; every value stays the bytes that the client sent (`msgspec.Raw`), so
that big integers, escapes, key order and blanks inside a value reach the engine as they were. A body that needs no
change is never written again at all. Of two equal keys the last wins, as it does in the engine.

Not every body can be read so. msgspec refuses NaN and lone surrogates (as the engine does) and gives up at deep nesting
(which the engine bears). Such a body is only looked at, with the standard library, and passed on as it came: nothing is
filled in, nothing is taken out. If something would have to be taken out of it, the request is refused, for an engine
may well read what we cannot. A leading byte-order mark is skipped, as the engine skips it.

A body comes from outside, and while it is read no other client is served. msgspec reads 100 MB in a moment; what works
through a body value by value in Python does not. So the standard library looks at small bodies only (`LONGEST_READ`),
and a body with more values than any prompt has (`MOST_VALUES`, `MOST_PLACES`) counts as one that can't be read.

The shapes of messages are messages.py's business; this module knows top-level keys only. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sized
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON, RequestError

Dialect = Literal["chat", "anthropic", "responses", "completion"]
Fields: TypeAlias = dict[str, Raw]
Json: TypeAlias = Any
Places = TypeVar("Places", bound=Sized)
Value = TypeVar("Value", bytes, Raw)

BOM = b"\xef\xbb\xbf"
LONGEST_READ = 64 << 10  # bytes up to which a body that msgspec refuses is looked at all the same
MOST_VALUES = 500_000  # keys of a body, as its colons tell; elements of a list, as its commas tell
MOST_PLACES = 20_000  # messages with their parts and fields, tools, prompts: what is worked through one by one
NOTHING: frozenset[str] = frozenset()
NO_CHANGES: Mapping[str, Json] = {}
FIELDS = msgspec.json.Decoder(Fields)
TEXT = msgspec.json.Decoder(str)


class Body:
    """A JSON body, opened once and written at most once.

    `fields` are its members; what changes one of them sets `changed`. None: it cannot be read as we read, and passes as
    it came; `names` are then its keys as far as the standard library tells (None: not even that).
    """

    __slots__ = ("changed", "fields", "model", "names", "raw", "stream")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.changed = False
        self.fields: Fields | None = None
        self.names: frozenset[str] | None = None
        self.model = ""
        self.stream = False
        text = raw[3:] if raw.startswith(BOM) else raw
        try:
            if len(text) > MOST_VALUES:
                countable(text, b":")
            fields = FIELDS.decode(text)
            if len(fields) > MOST_PLACES:
                few(fields)
            model = bytes(fields.get("model", b""))
            self.model = TEXT.decode(model) if model[:1] == b'"' else ""
            self.stream = "stream" in fields and bytes(fields["stream"]) == b"true"
            self.fields = fields
        except NOT_JSON:
            self.look_at(text)

    def look_at(self, text: bytes) -> None:
        """See what can be seen of a body that msgspec refuses: the standard library is more lenient."""
        try:
            found: Json = json.loads(text.decode() if len(text) <= LONGEST_READ else "", parse_int=float)
        except (ValueError, RecursionError):
            return
        if not isinstance(found, dict):
            self.names = frozenset()
            return
        model = found.get("model")
        self.model = model if isinstance(model, str) else ""
        self.stream = found.get("stream") is True
        self.names = frozenset(found)

    def has(self, key: str) -> bool:
        """Whether the engine may find `key` in it; in doubt yes."""
        if self.fields is not None:
            return key in self.fields
        return mentions(self.raw, key) if self.names is None else key in self.names

    def written(self, changes: Mapping[str, Json] = NO_CHANGES, drop: frozenset[str] = NOTHING) -> bytes:
        """The bytes with `changes` in place of their keys and without the keys in `drop`; `raw` if nothing changed.

        RequestError if a key of `drop` cannot be taken out.
        """
        if self.fields is None:
            self.refuse(drop)
            return self.raw
        if not self.changed and not changes and drop.isdisjoint(self.fields):
            return self.raw
        kept: dict[str, Json] = {key: value for key, value in self.fields.items() if key not in drop}
        return msgspec.json.encode({**kept, **changes})

    def refuse(self, keys: Iterable[str]) -> None:
        """RequestError if one of `keys` is, or may be, in a body from which it cannot be taken out."""
        for key in keys:
            if self.has(key):
                raise RequestError(
                    f"this body has the field `{key}`, which must not reach the engine, and cannot be read well enough "
                    f"to take it out; leave `{key}` away, or send JSON without NaN, lone surrogates, deep nesting and "
                    "a great number of values"
                )


def countable(value: Value, mark: bytes = b",") -> Value:
    """A JSON value to be taken apart, if it has few enough members; else msgspec.ValidationError.

    Each member costs an object, whatever it is, and a `mark` that is counted in no time (those in texts count, too).
    """
    if len(value) > MOST_VALUES and bytes(value).count(mark) > MOST_VALUES:
        raise msgspec.ValidationError(f"more than {MOST_VALUES} values")
    return value


def few(found: Places) -> Places:
    """The members of an object or list, if they are few enough to be worked through; else msgspec.ValidationError."""
    if len(found) > MOST_PLACES:
        raise msgspec.ValidationError(f"more than {MOST_PLACES} values in one place")
    return found


def string(raw: Raw) -> str:
    """The text of a JSON string; empty for any other value."""
    try:
        return TEXT.decode(raw)
    except msgspec.ValidationError:
        return ""


@lru_cache(maxsize=16)
def key_search(key: str) -> Callable[[bytes], object]:
    """What searches a body for `key` as a JSON string, whichever of its letters are written as escapes."""
    import re2  # 2.5 MB that only a body needs which cannot be read

    letters = (f"(?:{re2.escape(letter)}|\\\\u{ord(letter):04x})" for letter in key)
    search: Callable[[bytes], object] = re2.compile(f'(?i)"{"".join(letters)}"').search
    return search


def mentions(text: bytes, key: str) -> bool:
    """Whether `key` may be a key of a body that cannot be read here; in doubt yes."""
    return key_search(key)(text) is not None
