"""The JSON Schema of llama-swap's dialect, for editors: `python -m bioproxy.config.swap.json_schema`.

Made from the same Structs as everything else. bioproxy's own keys stand beside llama-swap's, as they may in a file. A
number or boolean may also be a text with a macro or variable in it.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import msgspec

from bioproxy.config.json_schema import DIALECT
from bioproxy.config.json_schema import json_schema as own_schema
from bioproxy.config.swap.schema import File

Json: TypeAlias = Any

FILLED_IN = {"type": "string", "pattern": r"\$\{"}
DURATION = {"type": "string", "pattern": r"^([0-9.]+(ns|us|µs|ms|s|m|h))+$|\$\{"}
POLICIES = ("auto", "always", "off")
SCALARS = ("integer", "number", "boolean")


def json_schema() -> dict[str, Json]:
    """The schema of a file in llama-swap's dialect, with bioproxy's own keys in it."""
    schema = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(File)))
    for definition in schema["$defs"].values():
        definition["properties"] = {name: filled(value) for name, value in definition["properties"].items()}
    definitions = schema["$defs"]
    definitions["Performance"]["properties"]["every"].update(DURATION, default="5s")
    definitions["Performance"]["properties"]["every"].pop("anyOf")
    own = own_schema()
    kv = definitions["Model"]["properties"]["kv"]
    definitions["Model"]["properties"]["kv"] = {
        "description": kv["description"],
        "anyOf": [{"enum": list(POLICIES)}, {"$ref": "#/$defs/Kv"}, FILLED_IN],
    }
    definitions["Model"]["properties"]["prefixes"] = own["$defs"]["Config"]["properties"]["prefixes"]
    definitions["File"]["properties"] |= own["$defs"]["Config"]["properties"]
    definitions |= {name: value for name, value in own["$defs"].items() if name != "Config"}
    return {"$schema": DIALECT, "title": "bioproxy, in llama-swap's dialect", **schema}


def filled(value: dict[str, Json]) -> dict[str, Json]:
    """The schema of a key whose value may also come from a macro or a variable."""
    if value.get("type") not in SCALARS:
        return value
    shared: dict[str, Json] = {name: value[name] for name in ("description", "default") if name in value}
    rest = {name: part for name, part in value.items() if name not in shared}
    return {**shared, "anyOf": [rest, FILLED_IN]}


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode() + "\n")
