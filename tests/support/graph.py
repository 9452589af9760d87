"""What a program holds, as one flat table: every plain value that can be reached from an object, by the way to it.

Two programs of one configuration hold the same; so a value that a reload forgot is found wherever it was copied to, in
an attribute, a closure or the arguments of a partial.
"""

from __future__ import annotations

import enum
import functools
import re
from collections import deque
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import PurePath
from types import FunctionType, MethodType
from typing import Any

import msgspec

PLAIN = (str, bytes, int, float, bool, type(None), enum.Enum, PurePath)
SEQUENCES = (list, tuple, deque)
LONGEST = 40  # characters of a way that `leave` may be about
FIRST = itemgetter(0)


def held(root: object, *, leave: re.Pattern[str]) -> dict[str, object]:
    """Way to value, from `root`; ways in which `leave` is found are not followed, and each object is seen once.

    Hundreds of thousands of ways are made for a test file, so a plain value takes no turn in the queue, and `leave` is
    looked for at the end of a way only: further in front it was not found before.
    """
    found: dict[str, object] = {}
    seen: set[int] = set()
    todo: deque[tuple[str, object]] = deque([("", root)])
    while todo:  # the shortest way to each thing, whatever was put where first
        way, value = todo.popleft()
        if isinstance(value, re.Pattern):
            found[way] = value.pattern
        elif isinstance(value, set | frozenset):
            found[way] = sorted(map(repr, value)) if all(isinstance(one, PLAIN) for one in value) else len(value)
        elif isinstance(value, tuple | msgspec.Struct) or id(value) not in seen:
            seen.add(id(value))
            end = max(0, len(way) - LONGEST)
            further = []
            for step, inner in parts(value):
                to = way + step
                if leave.search(to, end):
                    continue
                if isinstance(inner, PLAIN):
                    found[to] = inner
                else:
                    further.append((to, inner))
            todo += sorted(further, key=FIRST)
    return found


def parts(value: object) -> Iterator[tuple[str, Any]]:
    """The steps from an object to what it holds."""
    if isinstance(value, Mapping):
        yield ".size", len(value)
        yield from ((f"[{key!r}]", inner) for key, inner in value.items() if isinstance(key, (*PLAIN, tuple)))
    elif isinstance(value, SEQUENCES):
        yield ".size", len(value)
        yield from ((f"[{place}]", inner) for place, inner in enumerate(value))
    elif isinstance(value, functools.partial):
        yield from ((".function", value.func), (".arguments", value.args), (".keywords", value.keywords))
    elif isinstance(value, MethodType):
        yield ".self", value.__self__
    elif isinstance(value, FunctionType):
        yield from ((f".cell{place}", cell.cell_contents) for place, cell in enumerate(value.__closure__ or ()))
    elif type(value).__module__.startswith("bioproxy"):
        yield from ((f".{name}", inner) for name, inner in attributes(value).items())


def attributes(value: object) -> dict[str, Any]:
    """What stands in an object of ours, in its dictionary or its slots."""
    slots = [name for cls in type(value).__mro__ for name in vars(cls).get("__slots__", ())]
    struct = getattr(value, "__struct_fields__", ())
    names = [*getattr(value, "__dict__", {}), *slots, *struct]
    return {name: getattr(value, name) for name in dict.fromkeys(names) if hasattr(value, name)}
