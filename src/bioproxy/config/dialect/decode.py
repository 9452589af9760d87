"""The tree becomes Structs: types checked, defaults filled in, unknown keys listed.

llama-swap ignores unknown keys without a word, typing errors too. They are accepted here as well, for files with
blocks of anchors rely on it, and each is listed with the key that was probably meant. A number where a text is wanted
is the text; nothing (`key:`) is the default.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config.dialect.notes import Notes, Path, dotted
from bioproxy.config.dialect.scalars import builtins, read_duration, scalar, write_scalar
from bioproxy.config.dialect.schema import File, Model
from bioproxy.config.keys import Kind, fields, unfold
from bioproxy.config.nearest import close, top_names
from bioproxy.config.tree import Node, describe_kind, describe_value

TRUE, FALSE = {"y", "yes", "on"}, {"n", "no", "off"}
ANCHORS = ("x-", ".")  # names of helper blocks, as other programs' files have them
INT64 = 1 << 63


class Entry(msgspec.Struct, frozen=True):
    """A key of a Struct: the attribute, its type, and whether another module fills it in (macros, kv, prefixes)."""

    attribute: str
    kind: Kind
    own: bool


@cache
def table(cls: type[msgspec.Struct]) -> dict[str, Entry]:
    """The keys of a Struct as a file has them; looked at once, for msgspec takes half a millisecond to tell them."""
    return {field.encode_name: Entry(field.name, unfold(field.type), _own(field)) for field in fields(cls)}


def _own(field: inspect.Field) -> bool:
    return isinstance(field.type, inspect.Metadata) and bool((field.type.extra or {}).get("own"))


class Decoder:
    """Decodes nodes by the type that a Struct declares; problems and unknown keys go into the notes."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    def expected(self, node: Node, kind: Kind, path: Path, words: str) -> Any:
        """Note that something else was expected, unless a text still has a macro or variable in it: that was said."""
        if not (isinstance(node.value, str) and "${" in node.value):
            got = describe_kind(node) if kind.secret else describe_value(node)
            self.notes.complain(path, f"expected {words}, got {got}")
        return UNSET

    def struct(self, node: Node, cls: type[msgspec.Struct], path: Path) -> Any:
        """A Struct; keys that are broken keep their default."""
        if node.value is None:
            return cls()
        known = table(cls)
        if not isinstance(node.value, dict):
            message = (
                getattr(cls, "must_be_mapping", "") or f"expected a mapping with some of the keys {', '.join(known)}"
            )
            self.notes.complain(path, f"{message}, got {describe_kind(node)}" if message.startswith("exp") else message)
            return UNSET
        values = {}
        for key, child in node.value.items():
            if key not in known:
                self.unknown(key, path, tuple(known))
            elif not known[key].own and child.value is not None:
                values[known[key].attribute] = self.value(child, known[key].kind, (*path, key))
        return cls(**{name: value for name, value in values.items() if value is not UNSET})

    def value(self, node: Node, kind: Kind, path: Path) -> Any:
        """The value of a node as its type wants it; UNSET after a problem was noted."""
        match kind.type:
            case inspect.BoolType():
                return self.boolean(node, kind, path)
            case inspect.IntType():
                return self.integer(node, kind, path)
            case inspect.FloatType():
                return self.duration(node, kind, path)
            case inspect.StrType():
                return self.text(node, kind, path)
            case inspect.AnyType():
                return builtins(node)
            case inspect.VarTupleType(item_type=item):
                return self.sequence(node, kind.of(item), path)
            case inspect.DictType(value_type=inner):
                return self.mapping(node, kind.of(inner), path)
            case inspect.StructType(cls=cls):
                return self.struct(node, cls, path)
            case inspect.UnionType(types=types):  # all of them are "or not given"
                return self.value(node, kind.of(next(t for t in types if not isinstance(t, inspect.NoneType))), path)
        raise TypeError(f"the decoder does not know the type at {dotted(path)}: {kind.type}")

    def boolean(self, node: Node, kind: Kind, path: Path) -> Any:
        """True or false, also as yes, no, on, off, y and n."""
        if isinstance(node.value, str) and node.value.lower() in TRUE | FALSE:
            return node.value.lower() in TRUE
        return node.value if isinstance(node.value, bool) else self.expected(node, kind, path, "true or false")

    def integer(self, node: Node, kind: Kind, path: Path) -> Any:
        """A whole number; what stands behind a decimal point is cut off."""
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return self.expected(node, kind, path, "a whole number")
        return int(value) if -INT64 <= value < INT64 else self.expected(node, kind, path, "a whole number of 64 bits")

    def duration(self, node: Node, kind: Kind, path: Path) -> Any:
        """Seconds from a text with a unit."""
        try:
            return read_duration(write_scalar(scalar(node)) if not isinstance(node.value, dict | tuple) else "")
        except ValueError:
            return self.expected(node, kind, path, "a duration such as 5s or 1m30s")

    def text(self, node: Node, kind: Kind, path: Path) -> Any:
        """A text, or what a number or boolean looks like as one."""
        if isinstance(node.value, dict | tuple):
            return self.expected(node, kind, path, "a text")
        return write_scalar(scalar(node))

    def sequence(self, node: Node, kind: Kind, path: Path) -> Any:
        """A list; broken items are left out after they were noted."""
        if not isinstance(node.value, tuple):
            return self.expected(node, kind, path, "a list")
        values = [self.value(child, kind, (*path, index)) for index, child in enumerate(node.value)]
        return tuple(value for value in values if value is not UNSET)

    def mapping(self, node: Node, kind: Kind, path: Path) -> Any:
        """A mapping with names of the user's own."""
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path, "a mapping")
        values: dict[str, Any] = {}
        for key, child in node.value.items():
            if child.value is None and isinstance(kind.type, inspect.DictType):
                values[key] = {}
            elif child.value is None and isinstance(kind.type, inspect.IntType):
                values[key] = 0
            else:
                values[key] = self.value(child, kind, (*path, key))
            if values[key] is UNSET and isinstance(kind.type, inspect.StructType) and kind.type.cls is Model:
                values[key] = Model()  # so that whoever names it is not told that there is none
        return {key: value for key, value in values.items() if value is not UNSET}

    def unknown(self, key: str, path: Path, known: tuple[str, ...]) -> None:
        """List a key that has no effect."""
        if not path and key.startswith(ANCHORS):
            return
        self.notes.note_unknown((*path, key), lambda: unknown_key(key, path, known))


def unknown_key(key: str, path: Path, known: tuple[str, ...]) -> str:
    """The sentence for a key that is not known at its place."""
    said = "is not known and has no effect"
    elsewhere = [place for place in places().get(key, ()) if place != dotted(path)]
    near = close(key, [*known, *(top_names() if not path else ())])
    if near and (key.lower() == near.lower() or not elsewhere):
        return f"{said}; did you mean {dotted((*path, near))}?"
    if elsewhere:
        return f"{said} here; did you mean {' or '.join(elsewhere)}?"
    return f"{said}; a block of YAML anchors may be named x-{key}" if not path else said


@cache
def places() -> dict[str, list[str]]:
    """Where each name of the format stands: "ttl" in "models.<id>.ttl"."""
    return _places(File, "", {})


def _places(cls: type[msgspec.Struct], path: str, found: dict[str, list[str]]) -> dict[str, list[str]]:
    for name, entry in table(cls).items():
        place = f"{path}.{name}" if path else name
        found.setdefault(name, []).append(place)
        type_: Any = entry.kind.type
        if isinstance(type_, inspect.UnionType):
            type_ = next(t for t in type_.types if not isinstance(t, inspect.NoneType))
        if isinstance(type_, inspect.StructType):
            _places(type_.cls, place, found)
        elif isinstance(type_, inspect.DictType) and isinstance(type_.value_type, inspect.StructType):
            _places(type_.value_type.cls, f"{place}.<id>", found)
    return found
