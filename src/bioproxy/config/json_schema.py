"""The JSON Schema of the config file, for editors that complete and check it while it is written."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from msgspec import inspect

from bioproxy.config.keys import SECTIONS, fields, unfold
from bioproxy.config.schema import Config
from bioproxy.config.sources import SCHEMA_KEY

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PATTERNS = {
    "seconds": r"^\s*(\d+(\.\d+)?|(\d*\.?\d+\s*(ms|s|m|h|d)\s*)+)\s*$",
    "bytes": r"^\s*\d*\.?\d+\s*([KMGTkmgt]?[Bb]|[KMGTkmgt][Ii][Bb])?\s*$",
}


def json_schema() -> dict[str, Any]:
    """The schema as msgspec makes it, with what the converter takes besides.

    Texts that stand for numbers with a unit ("30s", "20GiB"), and nothing behind the key of a section, list or mapping.
    """
    schema = msgspec.json.schema(Config)
    definitions = schema["$defs"]
    structs: list[type[msgspec.Struct]] = [Config, *SECTIONS.values()]
    for struct in structs:
        properties = definitions[struct.__name__]["properties"]
        for field in fields(struct):
            kind = unfold(field.type)
            known = properties[field.name]
            if kind.unit:
                properties[field.name] = _with_texts(known, kind.unit)
            elif unit := next((each.unit for each in kind.choices if each.unit), ""):
                known["anyOf"].append({"type": "string", "pattern": PATTERNS[unit]})
            elif isinstance(kind.type, inspect.VarTupleType | inspect.DictType):
                known["type"] = [known["type"], "null"]
    for struct in SECTIONS.values():
        definitions[struct.__name__]["type"] = ["object", "null"]
    definitions["Config"]["properties"][SCHEMA_KEY] = {"description": "For editors; ignored."}
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))  # defaults become JSON, too
    return {"$schema": DIALECT, "title": "bioproxy", **found}


def _with_texts(number: dict[str, Any], unit: str) -> dict[str, Any]:
    """A number's schema with a second choice: a text in its unit."""
    shared: dict[str, Any] = {name: number.pop(name) for name in ("description", "default") if name in number}
    return {**shared, "anyOf": [number, {"type": "string", "pattern": PATTERNS[unit]}]}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode() + "\n")
