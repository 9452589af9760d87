"""Macros: `${NAME}` in any text stands for a text or a number that is declared once.

A list of macros is applied from its last to its first. So a macro may use those declared before it, never itself or
later ones, and the expansion ends after one pass, whatever is written. What is left over is an error, found by
`expand.py`. A text that is nothing but `${NAME}` takes the macro's own type: a number stays a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from operator import itemgetter

import msgspec

from bioproxy.config.dialect.notes import Notes, Path
from bioproxy.config.dialect.scalars import Scalar, scalar, write_scalar
from bioproxy.config.tree import Node

NAME = re.compile(r"[a-zA-Z0-9_-]+")
USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
COMMENT = re.compile(r"^[^\S\n]*#.*(?:\n|\Z)", re.MULTILINE)
COMMANDS: tuple[Path, ...] = (("cmd",), ("cmdStop",))  # in a model
RESERVED = ("PID", "PORT", "MODEL_ID")
NAME_LIMIT = 63


class Macro(msgspec.Struct, frozen=True):
    """A name and what stands for `${name}`."""

    name: str
    value: Scalar

    @property
    def use(self) -> str:
        """How it is written where it is used."""
        return f"${{{self.name}}}"


def declared(node: Node | None, path: Path, notes: Notes, *, shown: str = "") -> tuple[Macro, ...]:
    """The macros of a `macros` block, broken ones noted and left out; `shown` begins the messages ("model M: ")."""
    if node is None or node.value is None:
        return ()
    if not isinstance(node.value, dict):
        notes.complain(path, f"{shown}macros must be a mapping")
        return ()
    macros = []
    for name, child in node.value.items():
        if fault := macro_fault(name, child):
            notes.complain((*path, name), shown + fault)
        else:
            value = scalar(child)
            assert value is not None
            macros.append(Macro(name, value))
    return tuple(macros)


def macro_fault(name: str, node: Node) -> str:
    """Why a declaration is none; "" where it is one."""
    if len(name) > NAME_LIMIT:
        return f"macro name '{name}' exceeds maximum length of {NAME_LIMIT} characters"
    if not NAME.fullmatch(name):
        return f"macro name '{name}' contains invalid characters, must match pattern ^[a-zA-Z0-9_-]+$"
    if name in RESERVED:
        return f"macro name '{name}' is reserved"
    if node.value is None or isinstance(node.value, dict | tuple):
        mapping, nothing = isinstance(node.value, dict), node.value is None
        kind = "map[string]interface {}" if mapping else "<nil>" if nothing else "[]interface {}"
        return f"macro '{name}' has invalid type {kind}, must be a scalar type (string, int, float, or bool)"
    if isinstance(node.value, str) and f"${{{name}}}" in node.value:
        return f"macro '{name}' contains self-reference"
    return ""


def strip_comments(command: str) -> str:
    """A command without its lines that begin with #."""
    return COMMENT.sub("", command) if "#" in command else command


class Macros:
    """A list of macros in its order, found by name: most texts use a few of very many.

    A model's list is its ID, the global macros (`common`) in their order, then those that only it has. A macro of a
    global one's name takes the global one's place, so that global macros after it see the model's value.
    """

    def __init__(self, macros: Iterable[Macro] = (), *, common: Macros | None = None, model: str | None = None) -> None:
        self.common = common
        self.own: dict[str, tuple[int, Macro]] = {} if model is None else {"MODEL_ID": (-1, Macro("MODEL_ID", model))}
        first = len(common.own) if common is not None else 0
        for place, macro in enumerate(macros, first):
            known = common.own.get(macro.name) if common is not None else None
            self.own[macro.name] = (known[0] if known is not None else place, macro)

    def find(self, name: str) -> tuple[int, Macro] | None:
        """A macro and its place in the order; None if there is none of that name."""
        return self.own.get(name) or (self.common.own.get(name) if self.common is not None else None)


def fill_value(text: str, macros: Macros, path: Path, notes: Notes) -> Scalar:
    """A text with the macros applied, last to first; what makes it too long ends the reading (ConfigError)."""
    last: float = math.inf
    while True:
        notes.work(len(text), path)
        found = [known for name in set(USE.findall(text)) if (known := macros.find(name)) and known[0] < last]
        if not found:
            return text
        last, macro = max(found, key=itemgetter(0))
        if text == macro.use:
            if not isinstance(macro.value, str):
                return macro.value
            notes.grow(len(macro.value), path)
            text = macro.value
            continue
        piece = write_scalar(macro.value)
        if path[2:] in COMMANDS and "\n" in piece.strip("\n"):  # or a comment at its beginning ends in mid-line
            piece = strip_comments(piece)
        notes.grow(text.count(macro.use) * (len(piece) - len(macro.use)), path)
        text = text.replace(macro.use, piece)


def fill(node: Node, macros: Macros, path: Path, notes: Notes) -> Node:
    """A tree with the macros applied to every text that is not a key."""
    match node.value:
        case str() if "${" in node.value:
            return Node(fill_value(node.value, macros, path, notes), node.line)
        case dict():
            members = {key: fill(child, macros, (*path, key), notes) for key, child in node.value.items()}
            return Node(members, node.line, node.raw)
        case tuple():
            items = (fill(child, macros, (*path, index), notes) for index, child in enumerate(node.value))
            return Node(tuple(items), node.line, node.raw)
        case _:
            return node


def fill_pid(command: str, pid: int) -> str:
    """A stop command for the process that is to be stopped."""
    return command.replace("${PID}", str(pid))
