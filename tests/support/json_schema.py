"""As much of JSON Schema as ours use, by its rules: whether a value fits a schema."""

from __future__ import annotations

import re
from typing import Any

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
