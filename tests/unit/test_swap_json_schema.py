"""The JSON Schema of llama-swap's dialect takes the config with every key, and editors can learn from it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bioproxy.config.swap.json_schema import json_schema
from bioproxy.config.swap.scalars import builtins
from bioproxy.config.yaml_tree import parse_yaml
from support.swap_files import EVERY_KEY

SCHEMA = json_schema()
KINDS: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": float, "null": type(None),
}  # fmt: skip


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what a schema says: as much of JSON Schema as ours uses."""
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return any(fits(value, each) for each in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kind = schema.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        return all(fits(member, known.get(key, others)) for key, member in value.items())
    return True


def plain(text: str) -> Any:
    """A text in YAML as plain values."""
    root = parse_yaml(text).root
    assert root is not None
    return builtins(root)


def test_every_key_fits() -> None:
    """With macros where numbers may stand, and our own keys."""
    assert fits(plain(EVERY_KEY.read_text()), SCHEMA)


@pytest.mark.parametrize(
    "text",
    [
        "globalTTL: soon",
        "models: {m: {ttl: [1]}}",
        "models: {m: {kv: sometimes}}",
        "performance: {every: 5}",
        "proxy_port: -x",
        "groups: {g: {members: a}}",
    ],
)
def test_mistakes_do_not_fit(text: str) -> None:
    """An editor underlines them."""
    assert not fits(plain(text), SCHEMA)


def test_keys_are_described() -> None:
    """What an editor shows while one types."""
    model = SCHEMA["$defs"]["Model"]["properties"]
    assert all(value.get("description") or "$ref" in str(value) for value in model.values())
    assert "proxy_port" in SCHEMA["$defs"]["File"]["properties"]
