"""What a config file says, before it is known what it means: values that remember their line.

JSON and YAML are both read into this tree, so that everything after it (unknown keys, wrong types) is written once and
every message can say `conf.yaml:12`. The standard parsers lose the lines, and let the last of two equal keys win in
silence: a prefix that stands twice would get one of its templates, and no message would say which.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

import msgspec

from bioproxy.config.masking import masked_command

DEPTH_LIMIT = 50  # of nesting: a config needs five; what is deeper is a mistake, and recursion has an end
NODE_LIMIT = 100_000  # keys and values, each alias with all that it stands for; a thousand models have twenty thousand
TOO_DEEP = f"nested deeper than {DEPTH_LIMIT} levels"
TOO_MANY = f"more than {NODE_LIMIT:,} keys and values; this cannot be a configuration"

STRIDE = 10_000_000  # lines per file, in the tree that several files make; a file of that many is refused
LONGEST_SHOWN = 60  # characters of a value in a message

TRUE, FALSE, NULL = {"true", "yes", "on"}, {"false", "no", "off"}, {"", "~", "null"}
INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,300}|[1-9][0-9]{0,2}(?:_[0-9]{3}){1,100}|0x[0-9a-fA-F]{1,200})")
FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")


Path: TypeAlias = tuple[str | int, ...]  # keys and indexes; a tuple, because model IDs have dots in them


class Node(msgspec.Struct, frozen=True):
    """One value. `line` counts from 1; inside a mapping it is the line of the key, because people look for that.

    What was filled in has the line 0.
    `raw` is a plain YAML scalar as it is written: for a key that wants a word, `policy: off` is "off", not False.
    """

    value: str | int | float | bool | tuple[Node, ...] | dict[str, Node] | None
    line: int = 0
    raw: str = ""


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from: `place` is "default", "conf.yaml:12", "BIOPROXY_PROXY_PORT" or "flag -port"."""

    source: Literal["default", "file", "environment", "flag"]
    place: str = "default"

    def __str__(self) -> str:
        """Read as `place`."""
        return self.place

    @property
    def where(self) -> str:
        """The place as an error names it; nothing for a default."""
        return {"default": "", "environment": f"environment variable {self.place}"}.get(self.source, self.place)


DEFAULT = Origin("default")


class Fault(msgspec.Struct, frozen=True):
    """Something wrong at a line, before the file's name is known."""

    line: int
    message: str
    key: str = ""


class Parsed(msgspec.Struct, frozen=True):
    """A whole file: its root, or None if the syntax is broken or nothing is in it, and every fault found."""

    root: Node | None
    faults: tuple[Fault, ...] = ()
    size: int = 0  # keys and values


class BrokenSyntax(Exception):
    """Ends the reading of a file; never leaves the parsers, which turn it into a Fault."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(line, message)


def join(path: str, key: str) -> str:
    """The dotted path of a member: "kv" and "policy" give "kv.policy"; the root's path is empty."""
    return f"{path}.{key}" if path else key


def dotted(path: Path) -> str:
    """A path for people: ("apiKeys", 0) is "apiKeys[0]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def locate(root: Node, path: Path) -> int:
    """The line of the deepest part of a path that stands in the tree; 0 if nothing of it does."""
    line = 0
    node = root
    for part in path:
        inside: Node | None = None
        if isinstance(node.value, dict):
            inside = node.value.get(str(part))
        elif isinstance(node.value, tuple) and isinstance(part, int):
            inside = node.value[part] if part < len(node.value) else None
        if inside is None:
            break
        node = inside
        line = node.line or line
    return line


def shift(node: Node, file: int) -> Node:
    """The same tree with the file's number in its lines."""
    line = node.line + file * STRIDE
    match node.value:
        case dict():
            return Node({key: shift(child, file) for key, child in node.value.items()}, line, node.raw)
        case tuple():
            return Node(tuple(shift(child, file) for child in node.value), line, node.raw)
        case _:
            return Node(node.value, line, node.raw)


def twice(path: str, *, line: int, first: int) -> Fault:
    """The fault of a key that stands twice in one mapping."""
    name = path.rpartition(".")[2] if not path.startswith("prefixes.") else path.removeprefix("prefixes.")
    return Fault(line, f'"{name}" stands twice: here and in line {first}; remove one of the two', path)


def plain(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes is: true, false, nothing, a number, else its text."""
    word = text.lower()
    if word in NULL:
        return None
    if word in TRUE or word in FALSE:
        return word in TRUE
    if INTEGER.fullmatch(text):
        return int(text, 0)
    return float(text) if FLOAT.fullmatch(text) else text


def describe_value(node: Node) -> str:
    """What a node is, for "expected a whole number, got …"; long texts are cut."""
    match node.value:
        case None:
            return "nothing"
        case bool():
            return node.raw or ("true" if node.value else "false")
        case int() | float():
            return f"the number {_cut(node.raw or str(node.value))}"
        case str():
            return f'the text "{_cut(masked_command(node.value))}"'
        case tuple():
            return "a list"
        case _:
            return "a mapping"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def describe_kind(node: Node) -> str:
    """What a node is without telling its value: for keys whose values are secret."""
    match node.value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "another text"
        case _:
            return describe_value(node)
