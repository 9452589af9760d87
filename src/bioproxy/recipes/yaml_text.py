"""Writing values as YAML that people like to read: texts in quotes, long commands as blocks.

PyYAML's own writer folds long lines and leaves texts bare that another reader takes for numbers. What is written here
is a small part of YAML, the same in 1.1 and 1.2: keys and texts as JSON writes them (YAML's double quotes know all of
its escapes), texts of several lines as a literal block, everything else one to a line. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeAlias

Json: TypeAlias = Any

STEP = "  "
PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}  # bare, they are no texts
BLOCK = re.compile(r"(?:[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff][^\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]*\n)+")


def key(name: str) -> str:
    """A key: bare if no reader can misread it."""
    return name if PLAIN_KEY.fullmatch(name) and name.lower() not in WORDS else scalar(name)


def scalar(value: Json) -> str:
    """A text in quotes, a number, true, false or null."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f").replace("\ufeff", "\\ufeff")


def lines(value: dict[str, Json]) -> Iterator[str]:
    """The lines of a mapping, without indentation and line ends of their own."""
    for name, child in value.items():
        yield from member(key(name), child)


def member(name: str, value: Json) -> Iterator[str]:
    """The lines of one key and its value."""
    if isinstance(value, dict) and value:
        yield f"{name}:"
        yield from (STEP + line for line in lines(value))
    elif isinstance(value, list | tuple) and value:
        yield f"{name}:"
        yield from (f"{STEP}- {flow(item)}" for item in value)
    elif isinstance(value, str) and BLOCK.fullmatch(value):
        yield f"{name}: |"
        yield from (STEP + line for line in value.splitlines())
    else:
        yield f"{name}: {flow(value)}"


def flow(value: Json) -> str:
    """A value within one line; JSON is YAML."""
    return scalar(value)
