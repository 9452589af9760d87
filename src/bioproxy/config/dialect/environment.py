"""`${env.NAME}`: the environment, written into the text of a file before anybody parses it.

Because it is text that is replaced, a variable may stand anywhere: in a key, inside a macro, as a number. Which
variables a file needs is decided on its parsed tree, so that a comment needs none. What an unset variable stands for
stays in the text, and later steps keep quiet about it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from bioproxy.config.dialect.notes import STRIDE, VARIABLE, Notes
from bioproxy.config.sources import parse
from bioproxy.config.tree import Node, Parsed

MARK = "${env."
UNSAFE = re.compile("[\r\n\0]")


def fill_text(text: str, *, path: str, file: int, environment: Mapping[str, str], notes: Notes, shown: str) -> str:
    """The text of a file with its variables filled in. `shown` begins the messages ("config FILE: ", or nothing)."""
    if MARK not in text:
        return text
    values = {}
    uses = Counter(VARIABLE.findall(text))
    for name, line in needed(text, parse(text, path)).items():
        if fault := variable_fault(name, environment):
            notes.unset.add(name)
            notes.complain_line(file * STRIDE + line, shown + fault)
        else:
            values[name] = environment[name].replace("\\", "\\\\").replace('"', '\\"')
            notes.grow(uses[name] * len(values[name]), file * STRIDE + line)
    return VARIABLE.sub(lambda match: values.get(match[1], match[0]), text)


def variable_fault(name: str, environment: Mapping[str, str]) -> str:
    """Why a variable cannot be filled in; "" where it can."""
    if name not in environment:
        return f"environment variable '{name}' is not set"
    if UNSAFE.search(environment[name]):
        return (
            f"environment variable '{name}' contains newlines or null bytes which are not allowed in YAML substitution"
        )
    return ""


def needed(text: str, parsed: Parsed) -> dict[str, int]:
    """The variables that a file needs, and the line of each; of a text that is no YAML yet, all that stand in it."""
    if parsed.root is None:
        lines = ((name, line) for line, piece in enumerate(text.split("\n"), 1) for name in VARIABLE.findall(piece))
    else:
        lines = ((name, line) for piece, line in texts(parsed.root) for name in VARIABLE.findall(piece))
    found: dict[str, int] = {}
    for name, line in lines:
        found.setdefault(name, line)
    return found


def texts(node: Node) -> Iterator[tuple[str, int]]:
    """Every text of a tree, keys too, with its line."""
    match node.value:
        case str():
            yield node.value, node.line
        case dict():
            for key, child in node.value.items():
                yield key, child.line
                yield from texts(child)
        case tuple():
            for child in node.value:
                yield from texts(child)


def fill_again(node: Node, *, environment: Mapping[str, str], notes: Notes) -> Node:
    """Fill in what a variable's value asked for: llama-swap runs the step once more on the merged tree, and no more."""
    match node.value:
        case str() if MARK in node.value:
            return _fill_node(node, environment, notes)
        case dict():
            members = {
                key: fill_again(child, environment=environment, notes=notes) for key, child in node.value.items()
            }
            return Node(members, node.line, node.raw)
        case tuple():
            items = tuple(fill_again(child, environment=environment, notes=notes) for child in node.value)
            return Node(items, node.line, node.raw)
        case _:
            return node


def _fill_node(node: Node, environment: Mapping[str, str], notes: Notes) -> Node:
    assert isinstance(node.value, str)
    for name in VARIABLE.findall(node.value):
        if name not in notes.unset and (fault := variable_fault(name, environment)):
            notes.unset.add(name)
            notes.complain_line(node.line, fault)
        elif name not in notes.unset:
            notes.grow(len(environment[name]), node.line)

    def value(match: re.Match[str]) -> str:
        return match[0] if match[1] in notes.unset else environment[match[1]]

    return Node(VARIABLE.sub(value, node.value), node.line)
