"""From the tree to values of the schema's types, with a sentence for everything that does not fit.

msgspec can convert too, but it stops at the first error, knows no lines, and tells types where people need examples. A
`Converter` goes on after an error, so that one run shows all of them. What could not be read is UNSET, and the caller
leaves it out: there will be no Config then, and what is left serves further checks only.

This is the one converter. It reads as strictly as bioproxy's own keys want it; `dialect/decode.py` is the same walk
with llama-swap's leniency about each kind of value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config import units
from bioproxy.config.keys import KEYS, SCHEMA_KEY, SECTIONS, Kind, members
from bioproxy.config.nearest import top_names, unknown_key
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Node, Path, describe_kind, describe_value, dotted

Resolve: TypeAlias = Callable[[str, int], str]  # a path of ours and its line, made absolute

MOST_UNKNOWN = 100  # unknown keys of a source that are named one by one
NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # NUL, and what the system makes of bytes that are no UTF-8


class Converter:
    """Converts the nodes of one source; what is wrong goes into its notes.

    `resolve` makes a path of ours absolute. It gets the path's line as well, because a tree may be merged from several
    files in different folders.
    """

    def __init__(self, notes: Notes, *, resolve: Resolve) -> None:
        self.notes = notes
        self.resolve = resolve
        self.unnamed = 0  # unknown keys beyond those that were named
        self.named = 0

    def complain(self, node: Node, path: Path, message: str) -> Any:
        """Note a problem; UNSET, so that a caller can return it."""
        self.notes.complain_line(node.line, message, dotted(path))
        return UNSET

    def expected(self, node: Node, kind: Kind, path: Path, words: str = "") -> Any:
        """Note that something else was expected; a secret value is not told."""
        got = describe_kind(node) if kind.secret else describe_value(node)
        return self.complain(node, path, f"expected {words or wanted(kind)}, got {got}{quotes_hint(node, kind)}")

    def unknown(self, node: Node, path: Path, known: Iterable[str]) -> None:
        """Note a key that is not known; of very many only the first, because each is compared with all that are."""
        if self.named >= MOST_UNKNOWN:
            self.unnamed += 1
            return
        self.named += 1
        self.note_unknown(node, path, known)

    def note_unknown(self, node: Node, path: Path, known: Iterable[str]) -> None:
        self.complain(node, path, unknown_key(dotted(path[:-1]), str(path[-1]), known))

    def value(self, node: Node, kind: Kind, path: Path) -> Any:
        """The value of a node as `kind` wants it, or UNSET after its problems were noted."""
        match kind.type:
            case inspect.BoolType():
                return self.boolean(node, kind, path)
            case inspect.IntType() | inspect.FloatType():
                return self.number(node, kind, path)
            case inspect.StrType():
                return self.text(node, kind, path)
            case inspect.LiteralType(values=values):
                word = node.raw or node.value
                return word if word in values else self.expected(node, kind, path)
            case inspect.VarTupleType(item_type=item):
                return self.sequence(node, kind, path, kind.of(item))
            case inspect.DictType(value_type=inner):
                return self.mapping(node, kind, path, kind.of(inner))
            case inspect.StructType(cls=cls):
                return self.struct(node, kind, path, cls)
            case inspect.UnionType():
                return self.union(node, kind, path)
        raise TypeError(f"the converter does not know the type of {dotted(path)}: {kind.type}")

    def boolean(self, node: Node, kind: Kind, path: Path) -> Any:
        return node.value if isinstance(node.value, bool) else self.expected(node, kind, path)

    def number(self, node: Node, kind: Kind, path: Path) -> Any:
        """A number inside its bounds; with a unit, texts such as "30s" and "20GiB" too."""
        value = node.value
        if isinstance(value, str) and kind.unit:
            try:
                value = units.read_seconds(value) if kind.unit == "seconds" else units.read_bytes(value)
            except ValueError as error:
                return self.complain(node, path, f"{error}, got {describe_value(node)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return self.expected(node, kind, path)
        whole = isinstance(kind.type, inspect.IntType)
        if (whole and value != int(value)) or not within(value, kind):
            return self.expected(node, kind, path)
        return int(value) if whole else float(value)

    def text(self, node: Node, kind: Kind, path: Path) -> Any:
        """A text, or a path of ours made absolute."""
        if not isinstance(node.value, str):
            return self.expected(node, kind, path)
        if NO_TEXT.search(node.value):  # its value is not told: it could not even be printed
            return self.complain(node, path, "expected a text, got bytes that are none (a NUL, or not UTF-8)")
        return self.resolve(node.value, node.line) if kind.path else node.value

    def union(self, node: Node, kind: Kind, path: Path) -> Any:
        """A value of the kind that it is meant to be; a sentence about another one names the words as well."""
        value = self.value(node, chosen(node, kind), path)
        if value is UNSET and (known := words(kind)):
            problem = self.notes.problems[-1]
            said = problem.message.replace("expected ", f"expected {', '.join(known)} or ", 1)
            self.notes.problems[-1] = msgspec.structs.replace(problem, message=said)
        return value

    def sequence(self, node: Node, kind: Kind, path: Path, item: Kind) -> Any:
        """A tuple of what the items convert to, "" for a broken one; nothing (an empty YAML value) is the empty one."""
        if node.value is None:
            return ()
        if not isinstance(node.value, tuple):
            return self.expected(node, kind, path)
        values = [self.value(child, item, (*path, index)) for index, child in enumerate(node.value)]
        return tuple("" if value is UNSET else value for value in values)  # later checks must find the others' index

    def mapping(self, node: Node, kind: Kind, path: Path, inner: Kind) -> Any:
        """A dict of what the values convert to, without broken ones; nothing (an empty YAML value) is the empty one."""
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path)
        values = {name: self.value(child, inner, (*path, name)) for name, child in node.value.items()}
        return {name: value for name, value in values.items() if value is not UNSET}

    def struct(self, node: Node, kind: Kind, path: Path, cls: type[msgspec.Struct]) -> Any:
        """A Struct with only known keys, and all the keys that it cannot be without."""
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path)
        known = members(cls)
        before = len(self.notes.problems)
        values: dict[str, Any] = {}
        for name, child in node.value.items():
            if name in known:
                values[name] = self.value(child, kind.of(known[name].kind), (*path, name))
            else:
                self.unknown(child, (*path, name), known)
        for name, member in known.items():
            if member.required and name not in values:
                self.complain(node, path, f"the key {name} is missing")
        return UNSET if len(self.notes.problems) > before else cls(**values)

    def keys_of(self, node: Node, section: str, path: Path) -> dict[str, Any]:
        """The values of a section's keys, by dotted key; `path` is where the section stands."""
        known = members(SECTIONS[section])
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self.complain(node, path, f"expected a mapping with some of the keys {', '.join(known)}")
            return {}
        values: dict[str, Any] = {}
        for name, child in node.value.items():
            if name in known:
                values[f"{section}.{name}"] = self.value(child, known[name].kind, (*path, name))
            else:
                self.unknown(child, (*path, name), known)
        return {key: value for key, value in values.items() if value is not UNSET}

    def all_keys(self, root: Node) -> dict[str, Any]:
        """The values of bioproxy's own keys in a file's root and its sections, by dotted key."""
        if not isinstance(root.value, dict):
            self.complain(root, (), "the file must be a mapping of keys to values, such as proxy_port: 8088")
            return {}
        values: dict[str, Any] = {}
        for name, node in root.value.items():
            if name in SECTIONS:
                values |= self.keys_of(node, name, (name,))
            elif name in KEYS:
                values[name] = self.value(node, KEYS[name].kind, (name,))
            elif name != SCHEMA_KEY:
                self.unknown(node, (name,), top_names())
        if self.unnamed:
            self.complain(root, (), f"and {self.unnamed:,} more unknown keys")
        return {key: value for key, value in values.items() if value is not UNSET}


def quotes_hint(node: Node, kind: Kind) -> str:
    """A hint for a text that needs quotes, or for a number or boolean that must not have them."""
    if isinstance(kind.type, inspect.StrType):
        return "; a text like this must stand in quotes" if isinstance(node.value, int | float | bool) else ""
    if not isinstance(node.value, str) or not isinstance(
        kind.type, inspect.IntType | inspect.FloatType | inspect.BoolType
    ):
        return ""
    if isinstance(kind.type, inspect.BoolType):
        fits = node.value in {"true", "false"}
    else:
        fits = node.value.strip().lstrip("+-").isdecimal() and not kind.unit
    return "; without quotes it would do" if fits else ""


def chosen(node: Node, kind: Kind) -> Kind:
    """Which kind of a union a node is meant to be: a word of a list, a mapping, else whatever is neither."""
    for each in kind.choices:
        if isinstance(each.type, inspect.LiteralType) and (node.raw or node.value) in each.type.values:
            return each
        if isinstance(each.type, inspect.StructType) and isinstance(node.value, dict):
            return each
    return next(each for each in kind.choices if not isinstance(each.type, inspect.LiteralType | inspect.StructType))


def words(kind: Kind) -> list[str]:
    """The words that a union takes beside other values."""
    return [
        str(word) for each in kind.choices if isinstance(each.type, inspect.LiteralType) for word in each.type.values
    ]


def within(value: float, kind: Kind) -> bool:
    """Whether a number is inside the schema's bounds."""
    type_ = kind.type
    assert isinstance(type_, inspect.IntType | inspect.FloatType)
    return (
        (type_.ge is None or value >= type_.ge)
        and (type_.gt is None or value > type_.gt)
        and (type_.le is None or value <= type_.le)
    )


def wanted(kind: Kind) -> str:
    """What a key wants, for people: "a whole number from 0 to 65535", "one of auto, always, off"."""
    match kind.type:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            noun = {"seconds": units.DURATION_HINT, "bytes": units.SIZE_HINT}.get(kind.unit, "a whole number")
            return noun + bounds(kind)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.VarTupleType():
            return 'a list, as in ["one", "two"]'
        case inspect.DictType():
            return "a mapping of prefixes to template files"
        case inspect.StructType(cls=cls):
            return "a mapping with the keys " + ", ".join(name for name in members(cls))
        case _:
            return "a path" if kind.path else "a text"


def bounds(kind: Kind) -> str:
    """The schema's bounds of a number, for people: " from 0 to 65535", " of at least 1", ", more than 0"."""
    type_ = kind.type
    assert isinstance(type_, inspect.IntType | inspect.FloatType)
    if type_.ge is not None and type_.le is not None and not kind.unit:
        return f" from {type_.ge} to {type_.le}"
    parts = [("more than", type_.gt), ("at least", type_.ge), ("at most", type_.le)]
    return "".join(f", {words} {write(number, kind)}" for words, number in parts if number is not None)


def write(number: float, kind: Kind) -> str:
    """A number in its unit: 30.0 seconds are "30s"."""
    if not number:
        return "0"
    if kind.unit == "seconds":
        return units.write_seconds(float(number))
    return units.write_bytes(int(number)) if kind.unit == "bytes" else str(number)
