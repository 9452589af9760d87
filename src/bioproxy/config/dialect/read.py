"""From the texts of one or more files to a DialectConfig, step by step in llama-swap's order.

1. `${env.NAME}` is filled in before a text is parsed, so a variable may stand anywhere: in a key, inside a macro, as a
   number. Which variables a file needs is decided on its parsed tree, so that a comment needs none. An unset variable
   stays in the text, and later steps keep quiet about it.
2. Several files become one tree. Things with a name (models, groups, ...) are put together, and one name may stand in
   one file only. Other mappings are merged key by key, lists are joined in the order of the files, and of two scalars
   neither wins: they must agree, or one of them is empty.
3. Macros and ports are filled in (`macros.py`), the tree becomes Structs, and these are settled (`settle.py`,
   `names.py`, `targets.py`).

Mistakes in the texts (syntax, files that contradict each other) end the reading after all files were parsed, because
all that follows would be consequences. Everything else is collected to the end.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from bioproxy.config.dialect.decode import Decoder
from bioproxy.config.dialect.fallbacks import settle_fallbacks
from bioproxy.config.dialect.macros import NOTHING, expand
from bioproxy.config.dialect.names import build_names, with_aliases
from bioproxy.config.dialect.schema import DialectConfig, File
from bioproxy.config.dialect.settle import settle_model, settle_settings
from bioproxy.config.dialect.targets import (
    settle_peers,
    settle_profiles,
    settle_routing,
    settle_selectors,
    without_tunnels,
)
from bioproxy.config.files import Source, folder_of, home, parse, relative_to
from bioproxy.config.keys import KEYS, SCHEMA_KEY
from bioproxy.config.nearest import top_names
from bioproxy.config.notes import VARIABLE, Notes
from bioproxy.config.tree import NODE_LIMIT, STRIDE, TOO_MANY, Node, Parsed, Path, dotted, shift
from bioproxy.errors import ConfigError, Problem

MARK = "${env."
UNSAFE = re.compile("[\r\n\0]")
SETTINGS = ("routing", "router", "settings")
NAMED: frozenset[Path] = frozenset({
    *((name,) for name in ("models", "groups", "profiles", "selectors", "peers", "matrix")),
    (*SETTINGS, "groups"),
    (*SETTINGS, "matrix"),
})  # fmt: skip
OWN = frozenset({*top_names(), SCHEMA_KEY})
BOTH = "ui"  # the one section that has keys of both dialects


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
    """Why a variable cannot be filled in; "" if it can."""
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


def merge(roots: Sequence[Node], notes: Notes) -> Node:
    """One tree of all files; conflicts are noted, and the first file's value stays."""
    merged = Node({})
    for root in roots:
        merged = _merge(merged, root, (), notes)
    return merged


def _empty(node: Node) -> bool:
    """Whether a key has no value; a `null` that is written out is a value like others."""
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


class Read(msgspec.Struct, frozen=True):
    """What files in llama-swap's dialect say.

    `values` are those of bioproxy's own keys at the top, by dotted key, and `own` the nodes that they were made of;
    `notes` have what is wrong, and tell where a line is.
    """

    config: DialectConfig
    own: dict[str, Node]
    values: dict[str, Any]
    notes: Notes


def is_dialect(parsed: Parsed) -> bool:
    """Whether a config is written in llama-swap's dialect: it has `models` or `peers` at the top."""
    root = parsed.root
    return root is not None and isinstance(root.value, dict) and not {"models", "peers"}.isdisjoint(root.value)


def read_dialect(sources: Sequence[Source], *, environment: Mapping[str, str]) -> DialectConfig:
    """The config that the files say together, in their order; raises ConfigError with all problems."""
    found = read(sources, environment=environment)
    found.notes.stop_at_problems()
    return found.config


def read(
    sources: Sequence[Source], *, environment: Mapping[str, str] = NOTHING, ports: Mapping[str, int] = NOTHING
) -> Read:
    """What the files say together, in their order; problems stay in the notes.

    `ports` are those that models have now, if this is a reload. Raises ConfigError only for texts that are no config at
    all.
    """
    if not sources:
        raise ConfigError([Problem("no configuration sources found")])
    notes = Notes([source.path for source in sources])
    notes.root = _merged(sources, environment, notes)
    assert isinstance(notes.root.value, dict)
    expanded = expand(notes.root.value, notes, ports=ports)
    notes.root = expanded.root
    members = expanded.root.value
    assert isinstance(members, dict)
    own = {key: node for key, node in members.items() if key in OWN}
    theirs = {key: node for key, node in members.items() if key not in OWN}
    if BOTH in members:
        own[BOTH], theirs[BOTH] = divided(members[BOTH])
    each = [relative_to(folder_of(source.path), environment) for source in sources]
    decoder = Decoder(notes, resolve=lambda path, line: each[line // STRIDE](path, line))
    config = DialectConfig(**decoder.attributes(theirs, File, ()), macros=expanded.macros, ports=expanded.ports)
    if decoder.unnamed:
        notes.unknown.append(Problem(f"{decoder.unnamed:,} more keys are not known and have no effect"))
    values = decoder.strict.all_keys(Node(own))
    macros = expanded.model_macros
    models = {name: replace(model, macros=macros.get(name, {})) for name, model in config.models.items()}
    config = settle(replace(config, models=models), notes)
    config = replace(config, unknown=tuple(notes.unknown), warnings=tuple(notes.warnings))
    return Read(config, own, values, notes)


def divided(section: Node) -> tuple[Node, Node]:
    """What is bioproxy's own in the section that both dialects have, and the rest; what is no section is the rest."""
    if not isinstance(section.value, dict):
        return Node({}, section.line), section
    ours = {key: node for key, node in section.value.items() if f"{BOTH}.{key}" in KEYS}
    rest = {key: node for key, node in section.value.items() if key not in ours}
    return Node(ours, section.line), Node(rest, section.line)


def _merged(sources: Sequence[Source], environment: Mapping[str, str], notes: Notes) -> Node:
    """One tree of all files, with the environment filled in."""
    roots, size, broken = [], 0, False
    if sys.platform == "win32":
        environment = {"HOME": home(environment), **environment}
    for file, source in enumerate(sources):
        shown = f"config {source.path}: " if len(sources) > 1 else ""
        text = fill_text(source.text, path=source.path, file=file, environment=environment, notes=notes, shown=shown)
        parsed = source.parsed if source.parsed is not None and text is source.text else parse(text, source.path)
        size += parsed.size
        for fault in parsed.faults:
            notes.complain_line(file * STRIDE + fault.line, fault.message, fault.key)
        if parsed.root is None:
            broken = broken or bool(parsed.faults)
        elif isinstance(parsed.root.value, dict):
            roots.append(shift(parsed.root, file) if file else parsed.root)
        elif parsed.root.value is not None:
            notes.complain_line(
                file * STRIDE + parsed.root.line, f"config {source.path}: top-level YAML must be a mapping"
            )
            broken = True
    if size > NODE_LIMIT:
        notes.give_up(f"the files together have {TOO_MANY}", 0)
    before = len(notes.problems)
    root = merge(roots, notes)
    if broken or len(notes.problems) > before:
        notes.stop_at_problems()
    return fill_again(root, environment=environment, notes=notes)


def settle(config: DialectConfig, notes: Notes) -> DialectConfig:
    """Checks and clamps in llama-swap's order; problems are noted."""
    config = without_tunnels(settle_settings(config, notes), notes)
    models = {name: settle_model(name, model, config, notes) for name, model in config.models.items()}
    names = build_names(config, notes)
    config = replace(config, models={name: with_aliases(model, name) for name, model in models.items()})
    config = settle_routing(config, names, notes)
    config = replace(config, peers=settle_peers(config, notes))
    config = replace(config, selectors=settle_selectors(config, names, notes))
    config = replace(config, models=settle_fallbacks(config, names, notes))
    config = replace(config, profiles=settle_profiles(config, names, notes))
    return replace(config, aliases=dict(names.aliases))
