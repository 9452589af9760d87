"""Several files become one tree.

Things with a name (models, groups, ...) are put together, and one name may stand in one file only. Other mappings are
merged key by key, lists are joined in the order of the files, and of two scalars neither wins: they must agree, or one
of them is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from bioproxy.config.dialect.notes import Notes, Path, dotted
from bioproxy.config.tree import Node

SETTINGS = ("routing", "router", "settings")
NAMED: frozenset[Path] = frozenset({
    *((name,) for name in ("models", "groups", "profiles", "selectors", "peers", "matrix")),
    (*SETTINGS, "groups"),
    (*SETTINGS, "matrix"),
})  # fmt: skip


def merge(roots: Sequence[Node], notes: Notes) -> Node:
    """One tree of all files; conflicts are noted, and the first file's value stays."""
    merged = Node({})
    for root in roots:
        merged = _merge(merged, root, (), notes)
    return merged


def _empty(node: Node) -> bool:
    """`key:` with nothing behind it; a `null` that is written out is a value like others."""
    return node.value is None and not node.raw


def _kind(node: Node) -> str:
    if isinstance(node.value, dict):
        return "mapping"
    return "sequence" if isinstance(node.value, tuple) else "scalar"


def _merge(first: Node, second: Node, path: Path, notes: Notes) -> Node:
    if _empty(second):
        return first
    if _empty(first):
        return second
    a, b = first.value, second.value
    if isinstance(a, dict) and isinstance(b, dict):
        return Node(_members(a, b, path, notes), first.line, first.raw)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return Node(a + b, first.line)
    if _kind(first) != _kind(second):
        message = f'conflict at "{dotted(path)}": incompatible YAML node kinds ({_kind(first)} and {_kind(second)})'
        notes.complain_line(second.line, message, dotted(path))
    elif (type(a), a) != (type(b), b):
        file = notes.where(second.line).rpartition(":")[0]
        message = f'conflict at "{dotted(path)}": {file} sets a different value than a previous source'
        notes.complain_line(second.line, message, dotted(path))
    return first


def _members(first: dict[str, Node], second: dict[str, Node], path: Path, notes: Notes) -> dict[str, Node]:
    members = dict(first)
    for key, node in second.items():
        if key not in members:
            members[key] = node
        elif path in NAMED:
            file = notes.where(node.line).rpartition(":")[0]
            message = f'duplicate {dotted(path)} "{key}" found in {file} (already defined in another config source)'
            notes.complain_line(node.line, message, dotted((*path, key)))
        else:
            members[key] = _merge(members[key], node, (*path, key), notes)
    return members
