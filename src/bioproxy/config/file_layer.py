"""Which config files count, and what they say: the file layer of a Config, in either dialect.

A file that has `models` or `peers` at the top, and whatever comes from a folder (`-config-dir`), is read as llama-swap
reads it (`config/dialect/`); everything else is our own dialect (`sources.py`). The own keys are the same in both, with
the same units and the same strictness. Two keys of llama-swap's mean what keys of ours mean, and become those:
`apiKeys` are joined to `api_keys`, and `logLevel` is `log.level` where that is not given.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from bioproxy.config.check import digest
from bioproxy.config.convert import Converter
from bioproxy.config.dialect.macros import NOTHING
from bioproxy.config.dialect.notes import Path, locate
from bioproxy.config.dialect.read import MARK, Read, is_dialect, read
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import Found, Source, read_sources, read_text
from bioproxy.config.sources import Layer, own_layer, parse, unreadable, walk
from bioproxy.config.tree import Node, Origin
from bioproxy.errors import ConfigError, Problem

Sources: TypeAlias = tuple[Source, ...]
LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"}  # llama-swap's words, and ours


class FileLayer(msgspec.Struct, frozen=True):
    """What the files say: bioproxy's own keys, and in llama-swap's dialect all the rest.

    `models` is the place where models or peers stand ("" where there are none), `origins` that of each key of theirs.
    """

    layer: Layer
    paths: tuple[str, ...] = ()
    dialect: DialectConfig | None = None
    models: str = ""
    origins: dict[str, Origin] = {}


def read_files(found: Found, environment: Mapping[str, str], ports: Mapping[str, int] = NOTHING) -> FileLayer:
    """The layer of the files that count; what is wrong with them stands in it. `ports`: those of models that run."""
    for given, shown, noun in ((found.path, found.shown, "file"), (found.directory, found.directory_shown, "folder")):
        if given == "":
            problem = Problem(f"names no {noun}; leave it out, or give it the path of one", where=shown)
            return FileLayer(Layer(unread=True, problems=[problem]))
    if found.directory is not None:
        return _folder(found, found.directory, environment, ports)
    if found.path is None:
        return FileLayer(Layer())
    try:
        text = read_text(found.path)
    except ValueError as error:
        return FileLayer(unreadable(error, found.path, found.shown), (found.path,))
    parsed = parse(text, found.path)
    if is_dialect(parsed) or (parsed.root is None and MARK in text):  # variables may be what makes it YAML
        layer = read_dialect((Source(_name(found.path, found.shown), text, parsed),), environment, ports)
    else:
        layer = FileLayer(own_layer(parsed, found.path, shown=found.shown, environment=environment), (found.path,))
    for other in found.ignored:
        said = f"is ignored, because {found.path} comes first; delete one of them"
        layer.layer.warnings.append(Problem(said, where=other))
    return layer


def _folder(found: Found, directory: str, environment: Mapping[str, str], ports: Mapping[str, int]) -> FileLayer:
    """The files of a folder, after the one that is named."""
    path = _name(found.path, found.shown) if found.path else ""
    try:
        sources = read_sources(path, _name(directory, found.directory_shown))
    except ConfigError as error:
        return FileLayer(Layer(unread=True, problems=[*error.problems]))
    return read_dialect(sources, environment, ports)


def _name(path: str, shown: str) -> str:
    """A file's name for messages that can be opened as it is: `~` is only for shells."""
    return path if shown.startswith("~") else shown


def read_dialect(sources: Sources, environment: Mapping[str, str], ports: Mapping[str, int]) -> FileLayer:
    """The layer of files in llama-swap's dialect; problems of both dialects together."""
    paths = tuple(os.path.abspath(source.path) for source in sources)
    try:
        found = read(sources, environment=environment, ports=ports)
    except ConfigError as error:
        return FileLayer(Layer(unread=True, problems=[*error.problems]), paths)
    notes = found.notes
    converter = Converter(origin=notes.origin, resolve=found.resolve)
    layer = Layer(values=walk(Node(found.own), converter), origins=converter.origins)
    _shared_keys(layer, found)
    layer.problems += [*dict.fromkeys(notes.problems), *converter.problems]
    layer.warnings += [*notes.unknown, *notes.warnings]
    config = found.config
    first = next((key for key in ("models", "peers") if getattr(config, key)), "")
    place = notes.where(locate(notes.root, (first,))) if first else ""
    return FileLayer(layer, paths, config, place, places_of(found))


def _shared_keys(layer: Layer, read: Read) -> None:
    """`apiKeys` and `logLevel`, as keys of ours; a key that stands in both lists is one."""
    keys = list(layer.values.get("api_keys", ()))
    known = {digest(key) for key in keys if isinstance(key, str) or not key.key_file}
    for index, key in enumerate(read.config.api_keys):
        if key and digest(key) not in known:
            layer.origins[f"api_keys[{len(keys)}]"] = _origin(read, ("apiKeys", index))
            known.add(digest(key))
            keys.append(key)
    if read.config.api_keys:
        layer.values["api_keys"] = tuple(keys)
        layer.origins.setdefault("api_keys", _origin(read, ("apiKeys",)))
    root = read.notes.root.value
    if isinstance(root, dict) and "logLevel" in root and "log.level" not in layer.values:
        layer.values["log.level"] = LEVELS[read.config.log_level]
        layer.origins["log.level"] = _origin(read, ("logLevel",))


def _origin(read: Read, path: Path) -> Origin:
    return read.notes.origin(locate(read.notes.root, path))


def places_of(read: Read) -> dict[str, Origin]:
    """The places of llama-swap's keys: of each at the top, and inside of what holds entries, of each entry's keys."""
    found: dict[str, Origin] = {}
    root = read.notes.root.value
    assert isinstance(root, dict)
    for name, node in root.items():
        found[name] = read.notes.origin(node.line)
        entries = node.value if isinstance(node.value, dict) and name not in read.own else {}
        for entry, inner in entries.items():
            found[f"{name}.{entry}"] = read.notes.origin(inner.line)
            keys = inner.value if isinstance(inner.value, dict) else {}
            found |= {f"{name}.{entry}.{key}": read.notes.origin(child.line) for key, child in keys.items()}
    return found
