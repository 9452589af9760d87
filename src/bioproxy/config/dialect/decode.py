"""llama-swap's leniency: the converter's walk, with another rule for each kind of value.

A number may stand for a text, `yes` is true, what follows a decimal point is cut off, a key without a value has its
default. llama-swap ignores unknown keys without a word, typing errors too. They are accepted here as well, because
files with blocks of anchors rely on it, and each is listed with the key that was probably meant.

bioproxy's own keys inside of a model, `kv` and `prefixes`, are read by the strict converter: they are written for us,
so a mistake in them is a problem, not a key without effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config.check import prefix_faults
from bioproxy.config.convert import Converter, Resolve
from bioproxy.config.dialect.go import builtins, read_duration, scalar, write_scalar
from bioproxy.config.dialect.schema import File, Model
from bioproxy.config.keys import KEYS, Kind, members
from bioproxy.config.nearest import close, top_names
from bioproxy.config.notes import Notes
from bioproxy.config.schema import Prefix, as_prefix
from bioproxy.config.tree import Node, Path, describe_kind, describe_value, dotted

TRUE, FALSE = {"y", "yes", "on"}, {"n", "no", "off"}
ANCHORS = ("x-", ".")  # names of helper blocks, as other programs' files have them
INT64 = 1 << 63


class Decoder(Converter):
    """Converts llama-swap's keys, and with a strict converter those of ours that stand in a model."""

    def __init__(self, notes: Notes, *, resolve: Resolve) -> None:
        super().__init__(notes, resolve=resolve)
        self.strict = Converter(notes, resolve=resolve)

    def complain(self, _node: Node, path: Path, message: str) -> Any:
        """Note a problem, unless it is the consequence of another."""
        self.notes.complain(path, message)
        return UNSET

    def expected(self, node: Node, kind: Kind, path: Path, words: str = "") -> Any:
        """Note that something else was expected, unless a text still has a macro or variable in it: that was told."""
        if not (isinstance(node.value, str) and "${" in node.value):
            got = describe_kind(node) if kind.secret else describe_value(node)
            self.complain(node, path, f"expected {words}, got {got}")
        return UNSET

    def note_unknown(self, _node: Node, path: Path, known: Iterable[str]) -> None:
        self.notes.unknown.append(self.notes.at(path, unknown_key(str(path[-1]), path[:-1], tuple(known))))

    def value(self, node: Node, kind: Kind, path: Path) -> Any:
        if isinstance(kind.type, inspect.AnyType):
            return builtins(node)
        return super().value(node, kind, path)

    def boolean(self, node: Node, kind: Kind, path: Path) -> Any:
        """True or false, also as yes, no, on, off, y and n."""
        if isinstance(node.value, str) and node.value.lower() in TRUE | FALSE:
            return node.value.lower() in TRUE
        return node.value if isinstance(node.value, bool) else self.expected(node, kind, path, "true or false")

    def number(self, node: Node, kind: Kind, path: Path) -> Any:
        """A whole number, cut off at the decimal point; a float is a duration, in seconds from a text with a unit."""
        value = node.value
        if isinstance(kind.type, inspect.FloatType):
            try:
                return read_duration(write_scalar(scalar(node)) if not isinstance(value, dict | tuple) else "")
            except ValueError:
                return self.expected(node, kind, path, "a duration such as 5s or 1m30s")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return self.expected(node, kind, path, "a whole number")
        return int(value) if -INT64 <= value < INT64 else self.expected(node, kind, path, "a whole number of 64 bits")

    def text(self, node: Node, kind: Kind, path: Path) -> Any:
        """A text; a number or boolean is written as one."""
        if isinstance(node.value, dict | tuple):
            return self.expected(node, kind, path, "a text")
        return write_scalar(scalar(node))

    def union(self, node: Node, kind: Kind, path: Path) -> Any:
        """A value that may also be missing."""
        return self.value(node, kind.present, path)

    def sequence(self, node: Node, kind: Kind, path: Path, item: Kind) -> Any:
        """A list; broken items are left out after they were noted."""
        if not isinstance(node.value, tuple):
            return self.expected(node, kind, path, "a list")
        values = [self.value(child, item, (*path, index)) for index, child in enumerate(node.value)]
        return tuple(value for value in values if value is not UNSET)

    def mapping(self, node: Node, kind: Kind, path: Path, inner: Kind) -> Any:
        """A mapping with names of the user's own."""
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path, "a mapping")
        values: dict[str, Any] = {}
        for key, child in node.value.items():
            if child.value is None and isinstance(inner.type, inspect.DictType | inspect.IntType):
                values[key] = {} if isinstance(inner.type, inspect.DictType) else 0
            else:
                values[key] = self.value(child, inner, (*path, key))
            if values[key] is UNSET and isinstance(inner.type, inspect.StructType) and inner.type.cls is Model:
                values[key] = Model()  # so that no reference to it is called unknown
        return {key: value for key, value in values.items() if value is not UNSET}

    def struct(self, node: Node, _kind: Kind, path: Path, cls: type[msgspec.Struct]) -> Any:
        if node.value is None:
            return cls()
        if isinstance(node.value, dict):
            return cls(**self.attributes(node.value, cls, path))
        said = getattr(cls, "must_be_mapping", "")
        wrong = f"expected a mapping with some of the keys {', '.join(members(cls))}, got {describe_kind(node)}"
        return self.complain(node, path, said or wrong)

    def attributes(self, nodes: Mapping[str, Node], cls: type[msgspec.Struct], path: Path) -> dict[str, Any]:
        """The attributes of a Struct; keys that are broken are left to their default."""
        known = members(cls)
        values = {}
        for key, child in nodes.items():
            member = known.get(key)
            if member is None:
                if path or not key.startswith(ANCHORS):
                    self.unknown(child, (*path, key), known)
            elif child.value is not None:
                read = self.own if member.kind.own else self.value
                values[member.attribute] = read(child, member.kind, (*path, key))
        return {name: value for name, value in values.items() if value is not UNSET}

    def own(self, node: Node, _kind: Kind, path: Path) -> Any:
        """A model's `kv` or `prefixes`. Blocks of macros are no part of the result: they are filled in already."""
        match path[-1]:
            case "kv":
                return self.kv(node, path)
            case "prefixes":
                found = self.strict.value(node, KEYS["prefixes"].kind, path)
                return UNSET if found is UNSET else self.prefixes(found, path)
        return UNSET

    def kv(self, node: Node, path: Path) -> Any:
        """The keys of `kv` that a model has of its own; a single word is its policy."""
        if isinstance(node.value, tuple):
            said = f"expected auto, always, off or a mapping of kv keys, got {describe_value(node)}"
            return self.strict.complain(node, path, said)
        if not isinstance(node.value, dict):
            policy = self.strict.value(node, KEYS["kv.policy"].kind, path)
            return UNSET if policy is UNSET else {"policy": policy}
        return {key.partition(".")[2]: value for key, value in self.strict.keys_of(node, "kv", path).items()}

    def prefixes(self, given: Mapping[str, str | Prefix], path: Path) -> dict[str, Prefix]:
        """Prefixes as Structs, whichever way they are written; none if one is wrong."""
        faults = [*prefix_faults(given)]
        for name, fault in faults:
            self.notes.complain((*path, name) if name else path, fault)
        return {} if faults else {name: as_prefix(value) for name, value in given.items()}


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
    found: dict[str, list[str]] = {}
    _places(File, "", found)
    return found


def _places(cls: type[msgspec.Struct], path: str, found: dict[str, list[str]]) -> None:
    for name, member in members(cls).items():
        place = f"{path}.{name}" if path else name
        found.setdefault(name, []).append(place)
        type_ = member.kind.present.type
        if isinstance(type_, inspect.StructType):
            _places(type_.cls, place, found)
        elif isinstance(type_, inspect.DictType) and isinstance(type_.value_type, inspect.StructType):
            _places(type_.value_type.cls, f"{place}.<id>", found)
