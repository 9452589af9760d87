"""The three sources of values (file, environment, flags), each read into a `Layer` on its own.

A layer knows its values by dotted key, where each came from, and everything that is wrong with it. Layers do not
know each other: a key that is wrong in the file is reported even where a flag overrides it, for the flag will be gone
tomorrow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from bioproxy.config.convert import Converter, Resolve
from bioproxy.config.files import looked_for, resolve
from bioproxy.config.json_tree import parse_json
from bioproxy.config.keys import (
    CONFIG_VARIABLE,
    ENVIRONMENT,
    FOLDER_VARIABLE,
    KEYS,
    SECTIONS,
    VARIABLES,
    Option,
    fields,
)
from bioproxy.config.nearest import top_names, unknown_variable
from bioproxy.config.tree import Node, Origin, Parsed, join
from bioproxy.config.yaml_tree import parse_yaml, plain
from bioproxy.errors import Problem

SCHEMA_KEY = "$schema"  # editors look for it; it says nothing to us

# What Kubernetes puts into every container when a service is called "bioproxy".
FOREIGN = re.compile(r"BIOPROXY(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP).*)?)")


class Layer(msgspec.Struct):
    """What one source says. `values` by dotted key; `origins` of prefixes and list items, too."""

    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    unread: bool = False  # the file could not be read at all
    problems: list[Problem] = []
    warnings: list[Problem] = []


def relative_to(folder: str, environment: Mapping[str, str]) -> Resolve:
    """What makes a path of ours absolute, seen from `folder`."""
    return lambda path, _line: resolve(path, folder=folder, environment=environment)


def parse(text: str, path: str) -> Parsed:
    """Read by the name's ending; where that says nothing, a text that begins with a brace is JSON."""
    ending = os.path.splitext(path)[1].lower()
    if ending == ".json" or (ending not in {".yaml", ".yml"} and text.lstrip().startswith("{")):
        return parse_json(text)
    return parse_yaml(text)


def unreadable(error: ValueError, path: str, shown: str) -> Layer:
    """The layer of a file that has no text."""
    return Layer(unread=True, problems=[Problem(f"{error}{looked_for(path, shown)}", where=shown)])


def own_layer(parsed: Parsed, path: str, *, shown: str, environment: Mapping[str, str]) -> Layer:
    """The layer of a config file in our own dialect; `shown` is its name in messages."""
    problems = [Problem(fault.message, where=f"{shown}:{fault.line}", key=fault.key) for fault in parsed.faults]
    if parsed.root is None:
        nothing = Problem(
            "the config file holds nothing but comments; write at least {} into it, or name no file", where=shown
        )
        return Layer(unread=True, problems=problems or [nothing])
    folder = os.path.dirname(os.path.abspath(path))
    converter = Converter(
        origin=lambda line: Origin("file", f"{shown}:{line}"), resolve=relative_to(folder, environment)
    )
    values = walk(parsed.root, converter)
    return Layer(values=values, origins=converter.origins, problems=[*problems, *converter.problems])


def walk(root: Node, converter: Converter) -> dict[str, Any]:
    """Convert every key of a file's root and its sections."""
    values: dict[str, Any] = {}
    if not isinstance(root.value, dict):
        converter.complain(root, "", "the file must be a mapping of keys to values, such as proxy_port: 8088")
        return values
    for name, node in root.value.items():
        if name in SECTIONS:
            values |= _section(name, node, converter)
        elif name in KEYS:
            values[name] = converter.convert(node, KEYS[name].kind, name)
        elif name != SCHEMA_KEY:
            converter.note_unknown(node, "", name, top_names())
    converter.count_unknown(root)
    return {path: value for path, value in values.items() if value is not UNSET}


def _section(section: str, node: Node, converter: Converter) -> dict[str, Any]:
    names = [field.name for field in fields(SECTIONS[section])]
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        converter.complain(node, section, f"expected a mapping with some of the keys {', '.join(names)}")
        return {}
    values = {}
    for name, child in node.value.items():
        path = join(section, name)
        if name in names:
            values[path] = converter.convert(child, KEYS[path].kind, path)
        else:
            converter.note_unknown(child, section, name, names)
    return values


def read_environment(environment: Mapping[str, str], *, folder: str) -> Layer:
    """The layer of the variables BIOPROXY_*. An empty one counts as not set; an unknown one is a warning.

    A warning and no error, because others may set such names: container platforms do.
    """
    layer = Layer()
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT) or name in {CONFIG_VARIABLE, FOLDER_VARIABLE} or not environment[name]:
            continue
        if option := VARIABLES.get(name):
            text = environment[name]
            _read_text_value(layer, option, text, Origin("environment", name), relative_to(folder, environment))
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
        origin = Origin("flag", f"flag {names.get(path, option.flags[0])}")
        _read_text_value(layer, option, text, origin, relative_to(folder, environment))
    return layer


def _read_text_value(layer: Layer, option: Option, text: str, origin: Origin, resolve: Resolve) -> None:
    converter = Converter(origin=lambda _line: origin, resolve=resolve)
    node = _text_node(text, option, converter)
    value = UNSET if node is None else converter.convert(node, option.kind, option.path)
    layer.problems += converter.problems
    if value is not UNSET:
        layer.values[option.path] = value
        layer.origins |= converter.origins


def _text_node(text: str, option: Option, converter: Converter) -> Node | None:
    """The tree of a value that came as a text: lists and mappings are JSON, numbers and booleans as in YAML."""
    match option.kind.type:
        case inspect.VarTupleType() | inspect.DictType() as type_:
            parsed = parse_json(text)
            example = '["one", "two"]' if isinstance(type_, inspect.VarTupleType) else '{"@code": "code.txt"}'
            for fault in parsed.faults or (() if parsed.root else (None,)):
                message = fault.message if fault else "nothing is given"
                converter.complain(Node(text), option.path, f"expected JSON such as {example}; {message}")
            return parsed.root if not parsed.faults else None
        case inspect.StrType() | inspect.LiteralType():
            return Node(text)
        case inspect.BoolType() if text.strip() in {"0", "1"}:
            return Node(text.strip() == "1")
        case _:
            value = plain(text.strip())
            return Node(text if value is None else value)
