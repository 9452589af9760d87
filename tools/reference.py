"""Writes what is made from the configuration's Structs: tables of docs/ and the JSON Schemas of the package.

Run `python -m tools.reference` after a key was changed. A page's prose is written by hand; what stands between two
marks is made here, and tests see that pages and schemas are what this would make of them. So no key is without its
line, and no line outlives its key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from bioproxy.config.convert import wanted, write
from bioproxy.config.describe import write as write_value
from bioproxy.config.dialect.go import write_duration
from bioproxy.config.dialect.schema import File, Filters, Group, Matrix, Model, Peer, Profile, Selector, Timeouts
from bioproxy.config.json_schema import schemas
from bioproxy.config.keys import KEYS, SECTIONS, Kind, Option, default, description, fields, unfold
from bioproxy.config.schema import Key, Prefix, Shape, SideRule, StabilizeRule

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs" / "configuration.md", ROOT / "docs" / "llama-swap.md")
SCHEMAS = ROOT / "src" / "bioproxy" / "schemas"
MARKS = re.compile(r"(<!-- (keys|swap): ([a-z_ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAR = 1_000_000  # a bound beyond this is for machines, not for the page
OBJECTS: dict[str, type[msgspec.Struct]] = {
    "api key": Key, "prefix": Prefix, "client rule": Shape, "side rule": SideRule, "stabilize rule": StabilizeRule,
}  # fmt: skip
DIALECT: dict[str, type[msgspec.Struct]] = {
    "top": File, "model": Model, "group": Group, "matrix": Matrix, "profile": Profile, "selector": Selector,
    "peer": Peer,
}  # fmt: skip


def fill(page: str) -> str:
    """The page with every stretch between marks made anew: `keys: kv` is a section of ours, `swap: model` a Struct."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}{block(match[3]) if match[2] == 'keys' else dialect_table(match[3])}{match[4]}"

    return MARKS.sub(made, page)


def block(name: str) -> str:
    """The table of one mark; KeyError for a name that is none."""
    if name in OBJECTS:
        return object_table(OBJECTS[name])
    section = "" if name == "top" else name
    if section and section not in SECTIONS:
        raise KeyError(name)
    return options_table([option for option in KEYS.values() if option.section == section])


def options_table(options: Iterable[Option]) -> str:
    """A table of keys: name, what it takes, environment and flags, what it does, whether that waits for a restart."""
    rows = [
        (
            f"`{option.path}`",
            with_default(takes(option.kind), shown_default(write_value(option, option.default))),
            " ".join(f"`{name}`" for name in (option.environment, *option.flags)),
            option.description + ("" if option.kind.live else " *Restart.*"),
        )
        for option in options
    ]
    return table(("Key", "Takes (default)", "Environment, flags", "What it does"), rows)


def object_table(struct: type[msgspec.Struct]) -> str:
    """A table of the keys of an object inside a list or mapping, without those that it has from a simpler one."""
    inherited = {name for base in struct.__bases__ for name in getattr(base, "__struct_fields__", ())}
    rows = [
        (
            f"`{field.name}`",
            with_default(takes(unfold(field.type)), shown(default(field), unfold(field.type).type)),
            description(field.type),
        )
        for field in fields(struct)
        if field.name not in inherited
    ]
    return table(("Key", "Takes (default)", "What it does"), rows)


def with_default(takes: str, default: str) -> str:
    """What a key takes, and its default if there is one, in one cell."""
    return f"{takes} ({default})" if default else takes


def shown_default(text: str) -> str:
    """A default in a table's cell."""
    return f"`{text}`" if text and text not in {"[]", "{}"} else ""


def takes(kind: Kind) -> str:
    """What a key takes, short: its unit, and the bounds that one may meet."""
    if len(kind.choices) > 1 and not any(isinstance(each.type, inspect.StructType) for each in kind.choices):
        return " or ".join(takes(each) for each in kind.choices)
    if kind.unit:
        lower = getattr(kind.type, "gt", None)
        return kind.unit + (f" > {write(lower, kind)}" if lower is not None else "")
    if isinstance(kind.type, inspect.IntType):
        return f"integer ≥ {kind.type.ge}" if (kind.type.le or 0) >= FAR else f"{kind.type.ge} to {kind.type.le}"
    if isinstance(kind.type, inspect.BoolType):
        return "boolean"
    if isinstance(kind.type, inspect.LiteralType):
        return " ".join(f"`{value}`" for value in kind.type.values)
    if isinstance(kind.type, inspect.VarTupleType):
        return "list"
    return "mapping" if isinstance(kind.type, inspect.DictType) else wanted(kind).removeprefix("a ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with an empty line before and after it."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n" + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"
    )


def dialect_table(name: str) -> str:
    """The table of a Struct of llama-swap's dialect."""
    lines = [(key, takes, does + process * " *Next process.*") for key, takes, process, does in rows(DIALECT[name])]
    return table(("Key", "Takes (default)", "What it does"), lines)


def rows(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, str, bool, str]]:
    """A line for each key: name, what it takes, whether it makes another process, what it does.

    The keys of a section stand with the section's name before them. A section that says it is as another one is a line.
    """
    for field in fields(struct):
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        type_ = unfold(field.type).present.type
        if isinstance(type_, inspect.StructType) and type_.cls is not Matrix:  # which has a table of its own
            if issubclass(type_.cls, Filters | Timeouts) and (said := description(field.type)):
                yield f"`{place}.*`", "", False, said
            else:
                yield from rows(type_.cls, place)
            continue
        yield (
            f"`{place}`",
            with_default(KINDS.get(type(type_), "mapping"), shown(default(field), type_)),
            unfold(field.type).process,
            description(field.type),
        )


def shown(value: Any, type_: inspect.Type) -> str:
    """The default of a Struct's key in a cell."""
    if value is msgspec.NODEFAULT:
        return "must be given"
    if isinstance(type_, inspect.FloatType):
        return f"`{write_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple) and value:
        return " ".join(f"`{item}`" for item in value)
    return f"`{value}`" if value not in (None, "", {}, ()) else ""


KINDS = {
    inspect.BoolType: "boolean",
    inspect.IntType: "integer",
    inspect.FloatType: "duration",
    inspect.StrType: "text",
    inspect.VarTupleType: "list",
}


def schema_files() -> dict[Path, str]:
    """The path of each JSON Schema, and what belongs there."""
    return {
        SCHEMAS / f"{name}.schema.json": msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
        for name, schema in schemas().items()
    }


if __name__ == "__main__":
    for path, text in ({page: fill(page.read_text("utf-8")) for page in PAGES} | schema_files()).items():
        path.write_text(text, "utf-8")
