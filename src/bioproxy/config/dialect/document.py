"""Writes the tables of a page from the Structs: `python -m bioproxy.config.dialect.document docs/llama-swap.md`.

As `config/document.py` does it for bioproxy's own keys: what stands between two marks is made here, and a test sees
that the page is what this would make of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from bioproxy.config.dialect.models import Model
from bioproxy.config.dialect.scalars import write_duration
from bioproxy.config.dialect.schema import File, Group, Matrix, Peer, Profile, Selector
from bioproxy.config.document import table
from bioproxy.config.keys import default, description, fields, unfold

MARKS = re.compile(r"(<!-- swap: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
TABLES: dict[str, type[msgspec.Struct]] = {
    "top": File, "model": Model, "group": Group, "matrix": Matrix, "profile": Profile, "selector": Selector,
    "peer": Peer,
}  # fmt: skip


def fill(page: str) -> str:
    """The page with every stretch between marks made anew; the mark names a table."""
    return MARKS.sub(lambda match: f"{match[1]}{table(HEAD, rows(TABLES[match[2]]))}{match[3]}", page)


HEAD = ("Key", "Default", "Takes", "Reload", "What it does")


def rows(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, ...]]:
    """A line for each key; the keys of a section stand with the section's name before them."""
    for field in fields(struct):
        place = f"{path}.{field.encode_name}" if path else field.encode_name
        type_ = unfold(field.type).type
        if isinstance(type_, inspect.UnionType):  # all of them are "or not given"
            type_ = next(each for each in type_.types if not isinstance(each, inspect.NoneType))
        if isinstance(type_, inspect.StructType) and type_.cls is not Matrix:  # which has a table of its own
            yield from rows(type_.cls, place)
            continue
        reload = "next process" if unfold(field.type).process else "at once"
        yield f"`{place}`", shown(default(field), type_), takes(type_), reload, description(field.type)


def shown(value: Any, type_: inspect.Type) -> str:
    """A default in a cell."""
    if isinstance(type_, inspect.FloatType):
        return f"`{write_duration(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple) and value:
        return " ".join(f"`{item}`" for item in value)
    return f"`{value}`" if value not in (None, "", {}, ()) else "none"


def takes(type_: inspect.Type) -> str:
    """What a key takes."""
    match type_:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "whole number"
        case inspect.FloatType():
            return "duration"
        case inspect.StrType():
            return "text"
        case inspect.VarTupleType():
            return "list"
        case _:
            return "mapping"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        file = Path(name)
        file.write_text(fill(file.read_text("utf-8")), "utf-8")
