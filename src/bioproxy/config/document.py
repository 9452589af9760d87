"""Writes the tables of a page from the schema: `python -m bioproxy.config.document docs/configuration.md`.

The page's prose is written by hand; what stands between two marks is made here, and a test sees that the page is what
this would make of it. So no key is without its line, and no line outlives its key.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bioproxy.config.convert import wanted, write
from bioproxy.config.describe import write as write_value
from bioproxy.config.keys import KEYS, SECTIONS, Kind, Option, default, description, fields, unfold
from bioproxy.config.schema import Key, Prefix

MARKS = re.compile(r"(<!-- keys: ([a-z_ ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FAR = 1_000_000  # a bound beyond this is for machines, not for the page
OBJECTS: dict[str, type[msgspec.Struct]] = {"api key": Key, "prefix": Prefix}


def fill(page: str) -> str:
    """The page with every stretch between marks made anew; the mark names a section, "top" or an object."""
    return MARKS.sub(lambda match: f"{match[1]}{block(match[2])}{match[3]}", page)


def block(name: str) -> str:
    """The table of one mark; KeyError for a name that is none."""
    if name in OBJECTS:
        return object_table(OBJECTS[name])
    section = "" if name == "top" else name
    if section and section not in SECTIONS:
        raise KeyError(name)
    return options_table([option for option in KEYS.values() if option.section == section])


def options_table(options: Iterable[Option]) -> str:
    """A table of keys: name, default, what it takes, environment, flags, when a reload counts, what it does."""
    rows = [
        (
            f"`{option.path}`",
            shown_default(write_value(option, option.default)),
            takes(option.kind),
            f"`{option.environment}`",
            " ".join(f"`{flag}`" for flag in option.flags),
            "at once" if option.kind.live else "restart",
            option.description,
        )
        for option in options
    ]
    return table(("Key", "Default", "Takes", "Environment", "Flags", "Reload", "What it does"), rows)


def object_table(struct: type[msgspec.Struct]) -> str:
    """A table of the keys of an object inside a list or mapping."""
    rows = [
        (f"`{field.name}`", shown_field_default(default(field)), takes(unfold(field.type)), description(field.type))
        for field in fields(struct)
    ]
    return table(("Key", "Default", "Takes", "What it does"), rows)


def shown_default(text: str) -> str:
    """A default in a table's cell."""
    return f"`{text}`" if text and text not in {"[]", "{}"} else "none"


def shown_field_default(value: Any) -> str:
    """The default of an object's key in a table's cell."""
    if value is msgspec.NODEFAULT:
        return "must be given"
    return shown_default("" if value == () else str(value).lower() if isinstance(value, bool) else str(value))


def takes(kind: Kind) -> str:
    """What a key takes, short: its unit, and the bounds that one may meet."""
    if len(kind.choices) > 1 and not any(isinstance(each.type, msgspec.inspect.StructType) for each in kind.choices):
        return " or ".join(takes(each) for each in kind.choices)
    if kind.unit:
        lower = getattr(kind.type, "gt", None)
        return kind.unit + (f", more than {write(lower, kind)}" if lower is not None else "")
    if isinstance(kind.type, msgspec.inspect.IntType) and (kind.type.le or 0) >= FAR:
        return f"whole number, at least {kind.type.ge}"
    if isinstance(kind.type, msgspec.inspect.LiteralType):
        return " ".join(f"`{value}`" for value in kind.type.values)
    if isinstance(kind.type, msgspec.inspect.VarTupleType):
        return "list"
    return "mapping" if isinstance(kind.type, msgspec.inspect.DictType) else wanted(kind).removeprefix("a ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, with an empty line before and after it."""
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n" + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"
    )


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(fill(file.read_text("utf-8")), "utf-8")
