"""From the tree to values of the schema's types, with a sentence for everything that does not fit.

msgspec can convert too, but stops at the first error, knows no lines, and tells types where people need examples. A
`Converter` goes on after an error, so that one run shows all of them; what could not be read is UNSET and the
caller leaves it out. Where a problem was noted there will be no Config: what is left serves further checks only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config import units
from bioproxy.config.keys import Kind, fields
from bioproxy.config.nearest import unknown_key
from bioproxy.config.tree import Node, Origin, describe_kind, describe_value, join
from bioproxy.errors import Problem

Resolve: TypeAlias = Callable[[str, int], str]  # a path of ours and its line, made absolute

MOST_UNKNOWN = 100  # unknown keys of a source that are named one by one
NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # NUL, and what the system makes of bytes that are no UTF-8


class Converter:
    """Converts the nodes of one source. `origin` names a line of it; `resolve` makes a path of ours absolute.

    It gets the path's line as well, for a tree may be merged of several files in different folders.
    `problems` gets what is wrong, `origins` the place of every value by its path (`prefixes.@code`, `api_keys[0]`).
    """

    def __init__(self, *, origin: Callable[[int], Origin], resolve: Resolve) -> None:
        self.origin = origin
        self.resolve = resolve
        self.problems: list[Problem] = []
        self.origins: dict[str, Origin] = {}
        self.unknown = 0

    def note_unknown(self, node: Node, section: str, name: str, known: Iterable[str]) -> None:
        """Note a key that nobody knows; of very many only the first, for each is compared with all that there are."""
        self.unknown += 1
        if self.unknown <= MOST_UNKNOWN:
            self.complain(node, join(section, name), unknown_key(section, name, known))

    def count_unknown(self, node: Node) -> None:
        """Say how many unknown keys were not named; for the end."""
        if self.unknown > MOST_UNKNOWN:
            self.complain(node, "", f"and {self.unknown - MOST_UNKNOWN:,} more unknown keys")

    def complain(self, node: Node, path: str, message: str) -> Any:
        """Note a problem; UNSET, so that a caller can return it."""
        self.problems.append(Problem(message, where=self.origin(node.line).where, key=path))
        return UNSET

    def expected(self, node: Node, kind: Kind, path: str, words: str = "") -> Any:
        """Note that something else was expected; a secret value is not told."""
        got = describe_kind(node) if kind.secret else describe_value(node)
        hint = ""
        if isinstance(kind.type, inspect.StrType) and isinstance(node.value, int | float | bool):
            hint = "; a text like this must stand in quotes"
        elif isinstance(node.value, str) and isinstance(
            kind.type, inspect.IntType | inspect.FloatType | inspect.BoolType
        ):
            hint = "; without quotes it would do" if self.fits(node.value, kind) else ""
        return self.complain(node, path, f"expected {words or wanted(kind)}, got {got}{hint}")

    def fits(self, text: str, kind: Kind) -> bool:
        """Whether a quoted text would be right without its quotes."""
        if isinstance(kind.type, inspect.BoolType):
            return text in {"true", "false"}
        return text.strip().lstrip("+-").isdecimal() and not kind.unit

    def convert(self, node: Node, kind: Kind, path: str) -> Any:
        """The value of a node as `kind` wants it, or UNSET after its problems were noted."""
        self.origins[path] = self.origin(node.line)
        match kind.type:
            case inspect.BoolType():
                return node.value if isinstance(node.value, bool) else self.expected(node, kind, path)
            case inspect.IntType() | inspect.FloatType():
                return self.number(node, kind, path)
            case inspect.StrType():
                return self.text(node, kind, path)
            case inspect.LiteralType(values=values):
                word = node.raw or node.value
                return word if word in values else self.expected(node, kind, path)
            case inspect.VarTupleType():
                return self.sequence(node, kind, path)
            case inspect.DictType():
                return self.mapping(node, kind, path)
            case inspect.StructType(cls=cls):
                return self.struct(node, kind, path, cls)
            case inspect.UnionType():
                return self.union(node, kind, path)
        raise TypeError(f"the schema has a type at {path} that the converter does not know: {kind.type}")

    def union(self, node: Node, kind: Kind, path: str) -> Any:
        """A value of the kind that it is meant to be; a sentence about another one names the words as well."""
        value = self.convert(node, chosen(node, kind), path)
        if value is UNSET and (known := words(kind)):
            problem = self.problems[-1]
            said = problem.message.replace("expected ", f"expected {', '.join(known)} or ", 1)
            self.problems[-1] = msgspec.structs.replace(problem, message=said)
        return value

    def text(self, node: Node, kind: Kind, path: str) -> Any:
        """A text, or a path of ours made absolute."""
        if not isinstance(node.value, str):
            return self.expected(node, kind, path)
        if NO_TEXT.search(node.value):  # shown nowhere: it could not even be printed
            return self.complain(node, path, "expected a text, got bytes that are none (a NUL, or not UTF-8)")
        return self.resolve(node.value, node.line) if kind.path else node.value

    def number(self, node: Node, kind: Kind, path: str) -> Any:
        """A number inside its bounds; with a unit, texts such as "30s" and "20GiB" too."""
        value = node.value
        if isinstance(value, str) and kind.unit:
            try:
                value = units.read_seconds(value) if kind.unit == "seconds" else units.read_bytes(value)
            except ValueError as error:
                return self.complain(node, path, f"{error}, got {describe_value(node)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.expected(node, kind, path)
        if isinstance(value, float) and not math.isfinite(value):
            return self.expected(node, kind, path)
        if isinstance(kind.type, inspect.IntType):
            if value != int(value):
                return self.expected(node, kind, path)
            value = int(value)
        if not within(value, kind):
            return self.expected(node, kind, path)
        return float(value) if isinstance(kind.type, inspect.FloatType) else value

    def sequence(self, node: Node, kind: Kind, path: str) -> Any:
        """A tuple of what the items convert to, "" for a broken one; nothing (an empty YAML value) is the empty one."""
        assert isinstance(kind.type, inspect.VarTupleType)
        if node.value is None:
            return ()
        if not isinstance(node.value, tuple):
            return self.expected(node, kind, path)
        item = kind.of(kind.type.item_type)
        values = [self.convert(child, item, f"{path}[{index}]") for index, child in enumerate(node.value)]
        return tuple("" if value is UNSET else value for value in values)  # later checks must find the others' index

    def mapping(self, node: Node, kind: Kind, path: str) -> Any:
        """A dict of what the values convert to, without broken ones; nothing (an empty YAML value) is the empty one."""
        assert isinstance(kind.type, inspect.DictType)
        if node.value is None:
            return {}
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path)
        inner = kind.of(kind.type.value_type)
        values = {name: self.convert(child, inner, join(path, name)) for name, child in node.value.items()}
        return {name: value for name, value in values.items() if value is not UNSET}

    def struct(self, node: Node, kind: Kind, path: str, cls: type[msgspec.Struct]) -> Any:
        """A Struct with only known keys, and all the keys that it cannot be without."""
        if not isinstance(node.value, dict):
            return self.expected(node, kind, path)
        known = {field.name: field for field in fields(cls)}
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, child in node.value.items():
            if name in known:
                values[name] = self.convert(child, kind.of(known[name].type), join(path, name))
            else:
                self.note_unknown(child, path, name, known)
        for name, field in known.items():
            if field.required and name not in values:
                self.complain(node, path, f"the key {name} is missing")
        return UNSET if len(self.problems) > before else cls(**values)


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
            return "a mapping with the keys " + ", ".join(field.name for field in fields(cls))
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
