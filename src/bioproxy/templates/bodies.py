"""Opening a request body without rebuilding it.

Only the top level of the JSON object is opened; every value stays the bytes that the client sent (`msgspec.Raw`), so
that big integers, escapes, key order and blanks inside a value reach the engine as they were. A body that needs no
change is never written again at all. Of two equal keys the last wins, as it does in the engine.

Not every body can be read so. msgspec refuses NaN and lone surrogates (as the engine does) and gives up at deep nesting
(which the engine bears). Such a body is only looked at, with the standard library, and passed on as it came: nothing is
filled in, nothing is taken out. If something would have to be taken out of it, the request is refused, for an engine
may well read what we cannot. A leading byte-order mark is skipped, as the engine skips it.

A body comes from outside, and while it is read nobody else is served. msgspec reads 100 MB in a moment; what works
through a body value by value in Python does not. So the standard library looks at small bodies only (`LONGEST_READ`),
and a body with more values than any prompt has (`MOST_VALUES`, `MOST_PLACES`) counts as one that can't be read.

The shapes of messages are messages.py's business; this module knows top-level keys only. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sized
from functools import lru_cache
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import re2
from msgspec import Raw

from bioproxy.errors import RequestError

Dialect = Literal["chat", "anthropic", "responses", "completion"]
Fields: TypeAlias = dict[str, Raw]
Json: TypeAlias = Any
Places = TypeVar("Places", bound=Sized)
Value = TypeVar("Value", bytes, Raw)

BOM = b"\xef\xbb\xbf"
LONGEST_READ = 64 << 10  # bytes up to which a body that msgspec refuses is looked at all the same
MOST_VALUES = 500_000  # keys of a body, as its colons tell; elements of a list, as its commas tell
MOST_PLACES = 20_000  # messages with their parts and fields, tools, prompts: what is worked through one by one
FIELDS = msgspec.json.Decoder(Fields)
TEXT = msgspec.json.Decoder(str)


class Opened(msgspec.Struct, frozen=True):
    """What a body says at its top level.

    `fields` is None where it cannot be read as we read, and must pass untouched; then `names` are its keys as far as
    the standard library could tell (None: not even that).
    """

    fields: Fields | None
    names: frozenset[str] | None = None
    model: str = ""
    stream: bool = False
    include_usage: bool = False
    has_id_slot: bool = False


def open_body(body: bytes) -> Opened:
    """Open a body; never raises."""
    text = body[3:] if body.startswith(BOM) else body
    try:
        fields = few(FIELDS.decode(countable(text, b":")))
        model = fields.get("model")
        return Opened(
            fields=fields,
            model=string(model) if model is not None else "",
            stream="stream" in fields and bytes(fields["stream"]) == b"true",
            include_usage="stream_options" in fields and wants_usage(fields["stream_options"]),
            has_id_slot="id_slot" in fields,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return look_at(text)


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


def look_at(text: bytes) -> Opened:
    """What can be seen of a body that msgspec cannot read: the standard library is more lenient."""
    try:
        found: Json = json.loads(text.decode() if len(text) <= LONGEST_READ else "", parse_int=float)
    except (ValueError, RecursionError):
        return Opened(fields=None, has_id_slot=mentions(text, "id_slot"))
    if not isinstance(found, dict):
        return Opened(fields=None, names=frozenset())
    model, options = found.get("model"), found.get("stream_options")
    return Opened(
        fields=None,
        model=model if isinstance(model, str) else "",
        stream=found.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        has_id_slot="id_slot" in found,
        names=frozenset(found),
    )


def string(raw: Raw) -> str:
    """The text of a JSON string; empty for any other value."""
    try:
        return TEXT.decode(raw)
    except msgspec.ValidationError:
        return ""


def wants_usage(raw: Raw) -> bool:
    """Whether `stream_options` asks for the usage chunk."""
    try:
        return bytes(FIELDS.decode(raw).get("include_usage", Raw())) == b"true"
    except msgspec.ValidationError:
        return False


@lru_cache(maxsize=16)
def key_search(key: str) -> Callable[[bytes], object]:
    """What searches a body for `key` as a JSON string, whichever of its letters are written as escapes."""
    letters = (f"(?:{re2.escape(letter)}|\\\\u{ord(letter):04x})" for letter in key)
    search: Callable[[bytes], object] = re2.compile(f'(?i)"{"".join(letters)}"').search
    return search


def mentions(text: bytes, key: str) -> bool:
    """Whether `key` may be a key of a body that nobody here can read; in doubt yes."""
    return key_search(key)(text) is not None


def refuse_unreadable(opened: Opened, body: bytes, drop: Iterable[str]) -> None:
    """RequestError if one of the keys in `drop` stands, or may stand, in a body from which it cannot be taken out."""
    for key in drop:
        if mentions(body, key) if opened.names is None else key in opened.names:
            raise RequestError(
                f"this body has the field `{key}`, which must not reach the engine, and cannot be read well enough to "
                f"take it out; leave `{key}` away, or send JSON without NaN, lone surrogates, deep nesting and a great "
                "number of values"
            )


def write_body(fields: Fields, changes: dict[str, Json], drop: frozenset[str]) -> bytes:
    """The body with `changes` in place of their keys and without the keys in `drop`; all other values as they came."""
    merged: dict[str, Json] = {key: value for key, value in fields.items() if key not in drop}
    return msgspec.json.encode(merged | changes)
