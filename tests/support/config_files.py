"""Configurations for tests: files in a folder of their own, settings for a part tested alone, YAML, JSON Schema.

`settings(queue_limit=3, warmup__settle=5)` gives settings without a file; two underscores are a dot. `yaml_text` writes
every text in quotes, as a careful person does: PyYAML leaves `0e0` bare, because YAML 1.1 takes it for a text, and our
reader takes it for the number that it looks like.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.keys import build
from bioproxy.config.load import Loaded, load
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings
from bioproxy.config.tree import Node
from bioproxy.errors import ConfigError, Problem

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def builtins(node: Node | None) -> Any:
    """The tree without its lines."""
    assert node is not None
    match node.value:
        case dict() as members:
            return {key: builtins(member) for key, member in members.items()}
        case tuple() as items:
            return [builtins(item) for item in items]
        case value:
            return value


def write(folder: Path, text: str, *, name: str = "conf.yaml") -> str:
    """Write a config file and give its path."""
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


def loaded(
    folder: Path,
    text: str | None = None,
    *,
    name: str = "conf.yaml",
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a text as a config file (none: without a file), the folder being home."""
    path = None if text is None else write(folder, text, name=name)
    return load(arguments, path=path, environment={"HOME": str(folder), **(environment or {})})


def problems(
    folder: Path,
    text: str | None = None,
    *,
    name: str = "conf.yaml",
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[Problem, ...]:
    """The problems of a config that cannot be loaded."""
    with pytest.raises(ConfigError) as raised:
        loaded(folder, text, name=name, arguments=arguments, environment=environment)
    return raised.value.problems


def sentences(folder: Path, text: str, *, name: str = "conf.yaml") -> list[str]:
    """The problems of a file as they are read, the folder taken off: "conf.yaml:3: key: sentence"."""
    return [str(problem).replace(os.path.join(folder, ""), "") for problem in problems(folder, text, name=name)]


def config(**keys: Any) -> Config:
    """A Config with these keys; nothing checks them."""
    return build({name.replace("__", "."): value for name, value in keys.items()})


def settings(swap: DialectConfig | None = None, **keys: Any) -> Settings:
    """Settings with these keys of bioproxy's own."""
    return Settings(config(**keys), swap)


class Quoting(yaml.SafeDumper):
    """Writes texts in double quotes, and everything else as always."""


def quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """One text."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


Quoting.add_representer(str, quoted)


def yaml_text(value: Any) -> str:
    """`value` (of JSON's types) as YAML."""
    return str(yaml.dump(value, Dumper=Quoting))


Json = Any
KNOWN = {
    "$ref", "$schema", "$defs", "title", "description", "default", "type", "anyOf", "enum", "pattern", "items",
    "properties", "additionalProperties", "required", "minimum", "maximum", "exclusiveMinimum",
}  # fmt: skip


def fits(value: Json, schema: Json, root: Json | None = None) -> bool:
    """Whether `value` is what `schema` says; KeyError for a word that is not known here."""
    root = schema if root is None else root
    if unknown := schema.keys() - KNOWN:
        raise KeyError(unknown)
    if "$ref" in schema and not fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root):
        return False
    if "anyOf" in schema and not any(fits(value, each, root) for each in schema["anyOf"]):
        return False
    if "enum" in schema and not any(same(value, each) for each in schema["enum"]):
        return False
    kinds = schema.get("type", [])
    if kinds and not any(is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    return of_its_kind(value, schema, root)


def of_its_kind(value: Json, schema: Json, root: Json) -> bool:
    """What counts for numbers, texts, lists and mappings only."""
    match value:
        case bool() | None:
            return True
        case int() | float():
            low, high, above = (schema.get(name) for name in ("minimum", "maximum", "exclusiveMinimum"))
            return (
                (low is None or value >= low) and (high is None or value <= high) and (above is None or value > above)
            )
        case str():
            return "pattern" not in schema or re.search(schema["pattern"], value) is not None
        case list():
            return all(fits(item, schema.get("items", {}), root) for item in value)
        case _:
            known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
            if any(name not in value for name in schema.get("required", ())):
                return False
            if others is False and value.keys() - known.keys():
                return False
            return all(fits(member, known.get(key, others), root) for key, member in value.items())


def is_a(value: Json, kind: str) -> bool:
    """Whether a value is of a kind; true is no number, and 1.0 is a whole one."""
    if kind in {"integer", "number"}:
        return isinstance(value, int | float) and not isinstance(value, bool) and (kind == "number" or value % 1 == 0)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[kind])


def same(value: Json, other: Json) -> bool:
    """Equality, in which true is not one."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
