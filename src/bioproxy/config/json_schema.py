"""The JSON Schemas of the config file, for editors that complete and check it while it is written.

One for each dialect, both made from the Structs. In llama-swap's dialect a key without a value has its default, a
number may stand for a text, and a macro or variable may stand for any number or boolean; bioproxy's own keys stand
beside llama-swap's, and unknown keys are no mistake, because they load.

`bioproxy config --schema` prints them. They are also files of the package, so that an editor or a schema store can
point at them without running anything; `tools/reference.py` writes those.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from bioproxy.config.dialect.go import write_duration
from bioproxy.config.dialect.schema import File
from bioproxy.config.keys import SCHEMA_KEY, SECTIONS, default, description, fields, unfold
from bioproxy.config.schema import Config

Json: TypeAlias = Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PATTERNS = {
    "seconds": r"^\s*(\d+(\.\d+)?|(\d*\.?\d+\s*(ms|s|m|h|d)\s*)+)\s*$",
    "bytes": r"^\s*\d*\.?\d+\s*([KMGTkmgt]?[Bb]|[KMGTkmgt][Ii][Bb])?\s*$",
}
FILLED_IN = {"type": "string", "pattern": r"\$\{"}
WORD = r"^([yY]([eE][sS])?|[nN][oO]?|[oO]([nN]|[fF][fF]))$|\$\{"  # what counts as true or false beside these two
DURATION = r"^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^0$|\$\{"
MACRO = {"type": ["string", "number", "boolean"]}


def own_schema() -> dict[str, Json]:
    """The schema of a file in our own dialect: as msgspec makes it, with what the converter takes besides.

    Texts that stand for numbers with a unit ("30s", "20GiB"), and no value for the key of a section, list or mapping.
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
    found: dict[str, Json] = msgspec.json.decode(msgspec.json.encode(schema))  # defaults become JSON, too
    return {"$schema": DIALECT, "title": "bioproxy", **found}


def _with_texts(number: dict[str, Json], unit: str) -> dict[str, Json]:
    """A number's schema with a second choice: a text in its unit."""
    shared: dict[str, Json] = {name: number.pop(name) for name in ("description", "default") if name in number}
    return {**shared, "anyOf": [number, {"type": "string", "pattern": PATTERNS[unit]}]}


def dialect_schema() -> dict[str, Json]:
    """The schema of a file in llama-swap's dialect, with bioproxy's own keys in it."""
    own = own_schema()["$defs"]
    definitions: dict[str, Json] = {name: fillable(value) for name, value in own.items() if name != "Config"}
    define(File, definitions)
    properties = fillable(own["Config"])["properties"]
    model = definitions["Model"]["properties"]
    policy = {"anyOf": [{"enum": ["auto", "always", "off"]}, {"$ref": "#/$defs/Kv"}, FILLED_IN, {"type": "null"}]}
    model["kv"] = {"description": model["kv"]["description"], **policy}
    model["prefixes"] = {**properties["prefixes"], "description": model["prefixes"]["description"]}
    del properties["ui"]  # the one section that both dialects have
    definitions["Ui"]["properties"] |= definitions.pop("WebPage")["properties"]
    definitions["File"]["properties"] |= properties
    return {
        "$schema": DIALECT,
        "title": "bioproxy, in llama-swap's dialect",
        "$ref": "#/$defs/File",
        "$defs": definitions,
    }


def define(struct: type[msgspec.Struct], definitions: dict[str, Json]) -> dict[str, Json]:
    """A reference to a Struct's definition, which is made if it is not there."""
    if struct.__name__ not in definitions:
        definition: dict[str, Json] = {
            "title": struct.__name__,
            "description": (struct.__doc__ or "").partition("\n")[0],
        }
        definitions[struct.__name__] = definition
        known = {field.encode_name: key_of(field, definitions) for field in fields(struct)}
        definition |= {"type": ["object", "null"], "properties": known}
    return {"$ref": f"#/$defs/{struct.__name__}"}


def key_of(field: inspect.Field, definitions: dict[str, Json]) -> Json:
    """One key: what it takes, what it does, its default."""
    found: dict[str, Json] = {}
    if said := description(field.type):
        found["description"] = said
    kind = unfold(field.type)
    value = msgspec.to_builtins(default(field))
    if not isinstance(kind.type, inspect.StructType):
        found["default"] = write_duration(value) if isinstance(kind.type, inspect.FloatType) else value
    if field.encode_name == "macros":
        return found | {"type": ["object", "null"], "additionalProperties": MACRO}
    return found | taken(kind.type, definitions)


def taken(type_: inspect.Type, definitions: dict[str, Json]) -> dict[str, Json]:
    """What the decoder takes for a type."""
    match unfold(type_).present.type:
        case inspect.BoolType():
            return {"anyOf": [{"type": ["boolean", "null"]}, {"type": "string", "pattern": WORD}]}
        case inspect.IntType():
            return {"anyOf": [{"type": ["number", "null"]}, FILLED_IN]}
        case inspect.FloatType():
            return {"anyOf": [{"type": "string", "pattern": DURATION}, {"enum": [0, None]}]}
        case inspect.StrType():
            return {"type": ["string", "number", "boolean", "null"]}
        case inspect.VarTupleType(item_type=item):
            return {"type": ["array", "null"], "items": taken(item, definitions)}
        case inspect.DictType(value_type=inner):
            return {"type": ["object", "null"], "additionalProperties": taken(inner, definitions)}
        case inspect.StructType(cls=cls):
            return define(cls, definitions)
        case _:
            return {}


def fillable(definition: dict[str, Json]) -> dict[str, Json]:
    """A Struct of bioproxy's own, as it stands in a file whose macros and variables were not filled in yet."""
    known = {name: filled(value) if name != SCHEMA_KEY else value for name, value in definition["properties"].items()}
    return {**definition, "properties": known}


def filled(value: dict[str, Json]) -> dict[str, Json]:
    """The schema of a key whose value may also come from a macro or a variable, unless it is a list or mapping."""
    if "$ref" in value or {"array", "object"} & set(value.get("type", ())):
        return value
    shared: dict[str, Json] = {name: value[name] for name in ("description", "default") if name in value}
    rest = {name: part for name, part in value.items() if name not in shared}
    return {**shared, "anyOf": [*rest.get("anyOf", [rest]), FILLED_IN]}


def schemas() -> dict[str, Json]:
    """The schema of each dialect by the dialect's name."""
    return {"bioproxy": own_schema(), "llama-swap": dialect_schema()}
