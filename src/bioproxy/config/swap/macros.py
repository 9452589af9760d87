"""Macros: `${NAME}` in any text stands for a text or a number that is declared once.

A list of macros is applied from its last to its first. So a macro may use those declared before it, never itself or
later ones, and the expansion ends after one pass, whatever is written. What is left over is an error, found by
`expand.py`. A text that is nothing but `${NAME}` takes the macro's own type: a number stays a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from bioproxy.config.swap.notes import Notes, Path
from bioproxy.config.swap.scalars import Scalar, scalar, write_scalar
from bioproxy.config.tree import Node

NAME = re.compile(r"[a-zA-Z0-9_-]+")
USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
RESERVED = ("PID", "PORT", "MODEL_ID")
NAME_LIMIT = 63
GROWTH_LIMIT = 1 << 20  # characters of one text: thirty macros that double make a gigabyte


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


def for_model(model: str, common: Sequence[Macro], special: Sequence[Macro]) -> tuple[Macro, ...]:
    """The list of one model: its ID, the global macros in their order, then those only it has.

    A model's macro of a global one's name takes the global one's place, so that global macros after it see its value.
    """
    overrides = {macro.name: macro for macro in special}
    taken = {macro.name for macro in common}
    return (
        Macro("MODEL_ID", model),
        *(overrides.get(macro.name, macro) for macro in common),
        *(macro for macro in special if macro.name not in taken),
    )


class Overgrown(ValueError):
    """A text that macros made longer than any config needs."""


def fill_value(text: str, macros: Sequence[Macro]) -> Scalar:
    """A text with the macros applied, last to first; raises Overgrown where it grows beyond 1 MiB."""
    for macro in reversed(macros):
        if text == macro.use:
            if not isinstance(macro.value, str):
                return macro.value
            text = macro.value
        elif macro.use in text:
            piece = write_scalar(macro.value)
            if len(text) + text.count(macro.use) * len(piece) > GROWTH_LIMIT:
                raise Overgrown(f"macros make this longer than {GROWTH_LIMIT} characters; see what {macro.use} holds")
            text = text.replace(macro.use, piece)
    return text


def fill(node: Node, macros: Sequence[Macro], path: Path, notes: Notes) -> Node:
    """A tree with the macros applied to every text that is not a key."""
    match node.value:
        case str() if "${" in node.value:
            try:
                return Node(fill_value(node.value, macros), node.line)
            except Overgrown as error:
                notes.complain(path, str(error))
                return Node("", node.line)
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
