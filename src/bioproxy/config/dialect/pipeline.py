"""From the texts of one or more files to a DialectConfig, step by step in llama-swap's order.

Mistakes in the texts (syntax, files that contradict each other) end the reading after all files were looked at, for
all that follows would be consequences. Everything else is collected to the end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from bioproxy.config.convert import Resolve
from bioproxy.config.dialect.decode import Decoder
from bioproxy.config.dialect.each_model import settle_model
from bioproxy.config.dialect.environment import fill_again, fill_text
from bioproxy.config.dialect.expand import NO_PORTS, Expanded, expand
from bioproxy.config.dialect.merge import merge
from bioproxy.config.dialect.names import build_names, with_aliases
from bioproxy.config.dialect.notes import STRIDE, Notes, shift
from bioproxy.config.dialect.overrides import own_keys
from bioproxy.config.dialect.routing import settle_routing
from bioproxy.config.dialect.scalars import builtins
from bioproxy.config.dialect.schema import DialectConfig, File
from bioproxy.config.dialect.settings import settle_settings
from bioproxy.config.dialect.targets import settle_peers, settle_profiles, settle_selectors, without_tunnels
from bioproxy.config.nearest import top_names
from bioproxy.config.sources import SCHEMA_KEY, parse, relative_to
from bioproxy.config.tree import NODE_LIMIT, TOO_MANY, Node, Parsed
from bioproxy.errors import ConfigError, Problem

OWN = frozenset({*top_names(), SCHEMA_KEY})


class Source(msgspec.Struct, frozen=True):
    """One config file: its path, as messages show it, its text, and what that was read as, if it was."""

    path: str
    text: str
    parsed: Parsed | None = None


class Read(msgspec.Struct, frozen=True):
    """A DialectConfig, and for the loader of bioproxy's own keys their nodes; `notes.where` tells where a line is.

    `resolve` makes a path in those absolute, seen from the folder of the file that it stands in.
    """

    config: DialectConfig
    own: dict[str, Node]
    notes: Notes
    resolve: Resolve


def is_dialect(parsed: Parsed) -> bool:
    """Whether a config is written in llama-swap's dialect: it has `models` or `peers` at the top."""
    root = parsed.root
    return root is not None and isinstance(root.value, dict) and not {"models", "peers"}.isdisjoint(root.value)


def read_dialect(sources: Sequence[Source], *, environment: Mapping[str, str]) -> DialectConfig:
    """The config that the files say together, in their order; raises ConfigError with all problems."""
    return read(sources, environment=environment).config


def read(sources: Sequence[Source], *, environment: Mapping[str, str]) -> Read:
    """As `read_dialect`, with what the loader of the own keys needs."""
    found = gather(sources, environment=environment)
    found.notes.stop_at_problems()
    return found


def gather(sources: Sequence[Source], *, environment: Mapping[str, str], ports: Mapping[str, int] = NO_PORTS) -> Read:
    """As `read`, but problems stay in the notes, so that a loader can add those of its own keys.

    `ports` are those that models have now, where this is a reload. Raises ConfigError only for texts that are no config
    at all.
    """
    if not sources:
        raise ConfigError([Problem("no configuration sources found")])
    notes = Notes([source.path for source in sources])
    root = _merged(sources, environment, notes)
    notes.root = root
    assert isinstance(root.value, dict)
    expanded = expand(root.value, notes, ports=ports)
    notes.root = expanded.root
    members = expanded.root.value
    assert isinstance(members, dict)
    own = {key: node for key, node in members.items() if key in OWN}
    file = _decode(Node({key: node for key, node in members.items() if key not in OWN}), expanded, notes)
    resolve = _resolver(sources, environment)
    models = members.get("models", Node({})).value
    if isinstance(models, dict):
        filled = {
            name: own_keys(name, models[name], model, resolve=resolve, notes=notes)
            for name, model in file.models.items()
        }
        file = replace(file, models=filled)
    if notes.unnamed:
        notes.unknown.append(Problem(f"{notes.unnamed:,} more keys are not known and have no effect"))
    config = replace(
        settle(file, notes),
        ports=expanded.ports,
        own={key: builtins(node) for key, node in own.items()},
        unknown=tuple(notes.unknown),
        warnings=tuple(notes.warnings),
    )
    return Read(config, own, notes, resolve)


def _resolver(sources: Sequence[Source], environment: Mapping[str, str]) -> Resolve:
    """What makes a path absolute by the file that its line is in."""
    each = [relative_to(_folder(source.path), environment) for source in sources]
    return lambda path, line: each[line // STRIDE](path, line)


def _folder(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


def _merged(sources: Sequence[Source], environment: Mapping[str, str], notes: Notes) -> Node:
    """One tree of all files, with the environment filled in."""
    roots, size, broken = [], 0, False
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


def _decode(root: Node, expanded: Expanded, notes: Notes) -> File:
    """The typed file, with the macros that the tree has no more."""
    file: Any = Decoder(notes).struct(root, File, ())
    assert isinstance(file, File)
    models = {name: replace(model, macros=expanded.model_macros.get(name, {})) for name, model in file.models.items()}
    return replace(file, models=models, macros=expanded.macros)


def settle(file: File, notes: Notes) -> DialectConfig:
    """Checks and clamps in llama-swap's order; problems are noted."""
    file = without_tunnels(settle_settings(file, notes), notes)
    models = {name: settle_model(name, model, file, notes) for name, model in file.models.items()}
    names = build_names(file, notes)
    file = replace(file, models={name: with_aliases(model, name) for name, model in models.items()})
    file = settle_routing(file, names, notes)
    file = replace(file, peers=settle_peers(file, notes))
    file = replace(file, selectors=settle_selectors(file, names, notes))
    file = replace(file, profiles=settle_profiles(file, names, notes))
    return DialectConfig(**{name: getattr(file, name) for name in file.__struct_fields__}, aliases=dict(names.aliases))
