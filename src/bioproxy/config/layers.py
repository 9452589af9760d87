"""The sources of values (files, environment, flags), each read into a `Layer` of its own, and how they become one.

A layer knows its values by dotted key, where each came from, and everything that is wrong with it. Layers do not know
each other: a key that is wrong in the file is reported even if a flag overrides it, because the flag may be gone
tomorrow.

Files come in two dialects. A file that has `models` or `peers` at the top, and every file of a folder (`-config-dir`),
is read as llama-swap reads it (`dialect/read.py`); everything else is our own dialect. bioproxy's own keys are the same
in both, with the same units and the same strictness. Two keys of llama-swap's mean what keys of ours mean, and become
those: `apiKeys` are joined to `api_keys`, and `logLevel` is `log.level` if that is not given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config.check import digest
from bioproxy.config.convert import Converter, Resolve
from bioproxy.config.dialect.read import MARK, is_dialect, read
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import Found, Source, folder_of, looked_for, parse, read_sources, read_text, relative_to
from bioproxy.config.json_tree import parse_json
from bioproxy.config.keys import CONFIG_VARIABLE, ENVIRONMENT, FOLDER_VARIABLE, KEYS, VARIABLES, Option
from bioproxy.config.nearest import unknown_variable
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Node, Origin, Parsed, Path, dotted, locate, plain
from bioproxy.errors import ConfigError, Problem

LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "error": "error"}  # llama-swap's words, and ours

# What Kubernetes puts into every container when a service is called "bioproxy".
FOREIGN = re.compile(r"BIOPROXY(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP).*)?)")


class Layer(msgspec.Struct):
    """What one source says. `values` by dotted key; `origins` of prefixes and list items, too."""

    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    unread: bool = False  # a file could not be read at all
    problems: list[Problem] = []
    warnings: list[Problem] = []


class FileLayer(Layer):
    """What the files say: bioproxy's own keys, and in llama-swap's dialect all the rest.

    `origins` has the places of both. `models` is the place where models or peers stand ("": there are none).
    """

    paths: tuple[str, ...] = ()
    dialect: DialectConfig | None = None
    models: str = ""


def read_files(found: Found, environment: Mapping[str, str], ports: Mapping[str, int]) -> FileLayer:
    """The layer of the files that count; what is wrong with them stands in it. `ports`: those of models that run."""
    for given, shown, noun in ((found.path, found.shown, "file"), (found.directory, found.directory_shown, "folder")):
        if given == "":
            return unreadable(Problem(f"names no {noun}; leave it out, or give it the path of one", where=shown))
    path = _name(found.path, found.shown) if found.path else ""
    if found.directory is not None:
        try:
            sources = read_sources(path, _name(found.directory, found.directory_shown), texts=found.texts)
        except ConfigError as error:
            return unreadable(*error.problems)
        return dialect_layer(sources, environment, ports)
    if found.path is None:
        return FileLayer()
    try:
        text = read_text(found.path, texts=found.texts)
    except ValueError as error:
        return unreadable(Problem(f"{error}{looked_for(found.path, found.shown)}", where=found.shown))
    parsed = parse(text, found.path)
    if is_dialect(parsed) or (parsed.root is None and MARK in text):  # variables may be what makes it YAML
        layer = dialect_layer([Source(path, text, parsed)], environment, ports)
    else:
        layer = own_layer(parsed, found.path, shown=found.shown, environment=environment)
    said = f"is ignored, because {found.path} comes first; delete one of them"
    layer.warnings += [Problem(said, where=other) for other in found.ignored]
    return layer


def unreadable(*problems: Problem) -> FileLayer:
    """The layer of files that have no text, or one that is no configuration."""
    return FileLayer(unread=True, problems=[*problems])


def _name(path: str, shown: str) -> str:
    """A file's name for messages that can be opened as it is: `~` is only for shells."""
    return path if shown.startswith("~") else shown


def own_layer(parsed: Parsed, path: str, *, shown: str, environment: Mapping[str, str]) -> FileLayer:
    """The layer of a config file in our own dialect; `shown` is its name in messages."""
    notes = Notes([shown])
    for fault in parsed.faults:
        notes.complain_line(fault.line, fault.message, fault.key)
    if parsed.root is None:
        said = "the config file holds nothing but comments; write at least {} into it, or name no file"
        return unreadable(*notes.problems or [Problem(said, where=shown)])
    values = Converter(notes, resolve=relative_to(folder_of(path), environment)).all_keys(parsed.root)
    return FileLayer(values=values, origins=origins(parsed.root, notes), problems=notes.problems, paths=(path,))


def dialect_layer(sources: Sequence[Source], environment: Mapping[str, str], ports: Mapping[str, int]) -> FileLayer:
    """The layer of files in llama-swap's dialect; problems of both dialects together."""
    try:
        found = read(sources, environment=environment, ports=ports)
    except ConfigError as error:
        return unreadable(*error.problems)
    notes, config = found.notes, found.config
    first = next((key for key in ("models", "peers") if getattr(config, key)), "")
    layer = FileLayer(
        values=found.values,
        origins=origins(notes.root, notes),
        problems=[*dict.fromkeys(notes.problems)],
        warnings=[*notes.unknown, *notes.warnings],
        paths=tuple(os.path.abspath(source.path) for source in sources),
        dialect=config,
        models=notes.where(locate(notes.root, (first,))) if first else "",
    )
    _shared_keys(layer, config)
    return layer


def _shared_keys(layer: FileLayer, config: DialectConfig) -> None:
    """`apiKeys` and `logLevel`, as keys of ours; a key that stands in both lists is one."""
    keys = list(layer.values.get("api_keys", ()))
    known = {digest(key) for key in keys if isinstance(key, str) or not key.key_file}
    for index, key in enumerate(config.api_keys):
        if key and digest(key) not in known:
            layer.origins[f"api_keys[{len(keys)}]"] = layer.origins[f"apiKeys[{index}]"]
            known.add(digest(key))
            keys.append(key)
    if config.api_keys:
        layer.values["api_keys"] = tuple(keys)
        layer.origins.setdefault("api_keys", layer.origins["apiKeys"])
    if "logLevel" in layer.origins and "log.level" not in layer.values:
        layer.values["log.level"] = LEVELS[config.log_level]
        layer.origins["log.level"] = layer.origins["logLevel"]


def origins(root: Node, notes: Notes) -> dict[str, Origin]:
    """Where each key and item of a tree stands, three levels deep: a key of ours in a list, a key of a model."""
    return {dotted(path): notes.origin(line) for path, line in places(root, (), 3) if line or notes.only}


def places(node: Node, path: Path, depth: int) -> Iterator[tuple[Path, int]]:
    """The path and the line of everything inside of a node, down to a depth."""
    inside: Iterable[tuple[str | int, Node]] = ()
    if depth and isinstance(node.value, dict):
        inside = node.value.items()
    elif depth and isinstance(node.value, tuple):
        inside = enumerate(node.value)
    for key, child in inside:
        yield (*path, key), child.line
        yield from places(child, (*path, key), depth - 1)


def read_environment(environment: Mapping[str, str], *, folder: str) -> Layer:
    """The layer of the variables BIOPROXY_*. An empty one counts as not set; an unknown one is a warning.

    A warning and no error, because others may set such names: container platforms do.
    """
    layer = Layer()
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT) or name in {CONFIG_VARIABLE, FOLDER_VARIABLE} or not environment[name]:
            continue
        if option := VARIABLES.get(name):
            origin = Origin("environment", name)
            _read_text_value(layer, option, environment[name], Notes(origin=origin), relative_to(folder, environment))
        elif not FOREIGN.fullmatch(name):
            layer.warnings.append(Problem(unknown_variable(name), where=f"environment variable {name}"))
    return layer


def read_flags(
    arguments: Mapping[str, str], *, names: Mapping[str, str], folder: str, environment: Mapping[str, str]
) -> Layer:
    """The layer of the command line: texts by dotted key; `names` are the flags as they were written."""
    layer = Layer()
    for path, text in arguments.items():
        option = KEYS[path]
        notes = Notes(origin=Origin("flag", f"flag {names.get(path, option.flags[0])}"))
        _read_text_value(layer, option, text, notes, relative_to(folder, environment))
    return layer


def _read_text_value(layer: Layer, option: Option, text: str, notes: Notes, resolve: Resolve) -> None:
    path: Path = (option.path,)
    node = _text_node(text, option, notes)
    value = UNSET if node is None else Converter(notes, resolve=resolve).value(node, option.kind, path)
    layer.problems += notes.problems
    if node is not None and value is not UNSET:
        layer.values[option.path] = value
        layer.origins |= origins(Node({option.path: node}), notes)


def _text_node(text: str, option: Option, notes: Notes) -> Node | None:
    """The tree of a value that came as a text: lists and mappings are JSON, numbers and booleans as in YAML."""
    match option.kind.type:
        case inspect.VarTupleType() | inspect.DictType() as type_:
            parsed = parse_json(text)
            example = '["one", "two"]' if isinstance(type_, inspect.VarTupleType) else '{"@code": "code.txt"}'
            said = [fault.message for fault in parsed.faults] or ([] if parsed.root else ["nothing is given"])
            for message in said:
                notes.complain_line(0, f"expected JSON such as {example}; {message}", option.path)
            return parsed.root if not parsed.faults else None
        case inspect.StrType() | inspect.LiteralType():
            return Node(text)
        case inspect.BoolType() if text.strip() in {"0", "1"}:
            return Node(text.strip() == "1")
        case _:
            value = plain(text.strip())
            return Node(text if value is None else value)


def merge(layers: Sequence[Layer]) -> Layer:
    """Later layers win, key by key. A list or mapping that wins replaces the whole one, its items' origins too."""
    merged = Layer()
    for layer in layers:
        for path in layer.values:
            stale = [key for key in merged.origins if key == path or key.startswith((f"{path}.", f"{path}["))]
            for key in stale:
                del merged.origins[key]
        merged.values |= layer.values
        merged.origins |= {key: origin for key, origin in layer.origins.items() if counts(top_key(key), layer)}
        merged.unread |= layer.unread
        merged.problems += layer.problems
        merged.warnings += layer.warnings
    return merged


def counts(key: str, layer: Layer) -> bool:
    """Whether a layer has a value for a key; those of llama-swap's stand in its dialect, not among the values."""
    return key in layer.values or key not in KEYS


def top_key(key: str) -> str:
    """The key of the table that a value belongs to: "prefixes" for "prefixes.@code", "kv.policy" for itself."""
    return key if key in KEYS else key.partition("[")[0].partition(".")[0]
