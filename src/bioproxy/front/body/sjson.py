r"""Setting and deleting one value of a JSON body by a path, as llama-swap's filters name them (sjson's syntax).

    temperature                  a key at the top
    chat_template_kwargs.think   a key inside of an object, which is made if it is missing
    stop.0   stop.-1             an element of a list by its number; -1 appends (and deletes the last one)
    logit_bias.:42               a number that is a key all the same
    a\.b                         a key with a dot in it

Only what stands on the path is opened. Everything else stays the bytes that the client sent: a conversation of a
megabyte is not decoded because `chat_template_kwargs` gets one more key, and big integers, escapes and the order of
keys reach the engine as they were. So a document here is an object's members as `msgspec.Raw`, and only the containers
on the path are written anew.

What a path finds that is neither object nor list gives way to one: to a list if the path goes on with a number or
-1, else to an object. Wildcards and queries (`*`, `?`, `#`, `@`, `|`), which sjson knows for values that exist, are
refused: a filter that changes many places at once is more likely a key that should have been escaped.

Paths come from the config, documents from clients; an error in either is a ValueError with a sentence. Pure.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.templates.bodies import FIELDS, Fields, countable

Json: TypeAlias = Any
Container: TypeAlias = dict[str, Json] | list[Json]

WILD = frozenset("|#@*?")
MOST_PADDED = 10_000  # nulls that a number beyond a list's end may cost
MOST_DIGITS = 9
ITEMS = msgspec.json.Decoder(list[Raw])


class Step(msgspec.Struct, frozen=True):
    """One part of a path; `forced`: it is a key, whatever it looks like."""

    key: str
    forced: bool = False

    @property
    def index(self) -> int | None:
        """The number of a list's element; None if it names none."""
        if self.forced or not (self.key.isascii() and self.key.isdigit()):
            return None
        return int(self.key) if len(self.key) <= MOST_DIGITS else 10**MOST_DIGITS

    @property
    def last(self) -> bool:
        """Whether it names a list's end."""
        return self.key == "-1" and not self.forced


Path: TypeAlias = tuple[Step, ...]


def parse(path: str) -> Path:
    """The steps of a path; ValueError if it is none."""
    steps: list[Step] = []
    key, escaped, forced, begun = "", False, False, False
    for character in path:
        if escaped:
            key, escaped = key + character, False
        elif character == "\\":
            escaped = True
        elif character == ".":
            steps.append(Step(key, forced))
            key, forced, begun = "", False, False
            continue
        elif character == ":" and not begun:
            forced = True
        elif character in WILD:
            raise ValueError(
                f"the path {path!r} has a {character!r} in it; a key with that sign is written \\{character}"
            )
        else:
            key += character
        begun = True
    steps.append(Step(key, forced))
    if any(not step.key for step in steps):
        raise ValueError(f"the path {path!r} has an empty part; write a key's own dot as \\.")
    return tuple(steps)


def encoded(value: Json) -> Raw:
    """A value as `put` wants it: encoded once."""
    return Raw(msgspec.json.encode(value))


def put(document: Fields, path: Path, value: Raw) -> bool:
    """Set what `path` names, and say whether that changed the document; ValueError if the path does not fit it."""
    key = path[0].key
    old = document.get(key)
    if len(path) > 1:
        value = encoded(placed(old, path[1:], value))
    if old is not None and bytes(old) == bytes(value):
        return False
    document[key] = value
    return True


def remove(document: Fields, path: Path) -> bool:
    """Delete what `path` names, and say whether it was there; ValueError if what it leads through cannot be read."""
    key = path[0].key
    if key not in document:
        return False
    if len(path) == 1:
        del document[key]
        return True
    left = without(document[key], path[1:])
    if left is None:
        return False
    document[key] = encoded(left)
    return True


def opened(value: Raw | None) -> Container | None:
    """The members of an object or the elements of a list; None for any other value, or none.

    ValueError for more of them than are taken apart while others wait.
    """
    first = b"" if value is None else bytes(memoryview(value)[:1])
    if value is None or first not in {b"{", b"["}:
        return None
    try:
        countable(value)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    return FIELDS.decode(value) if first == b"{" else ITEMS.decode(value)


def placed(old: Raw | None, path: Path, value: Raw) -> Json:
    """`old` with `value` where `path` leads; only what stands on the path is opened."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    container = opened(old)
    if container is None:
        container = [] if step.index is not None or step.last else {}
    if isinstance(container, dict):
        container[step.key] = placed(container.get(step.key), rest, value)
        return container
    index = len(container) if step.last else step.index
    if index is None:
        raise ValueError(f"there is a list, and the path goes on with the key {step.key!r}")
    if index - len(container) > MOST_PADDED:
        raise ValueError(f"the list has {len(container)} elements, and the path names number {step.key}")
    container.extend([None] * (index + 1 - len(container)))
    element = container[index]
    container[index] = placed(element if isinstance(element, Raw) else None, rest, value)
    return container


def without(old: Raw, path: Path) -> Container | None:
    """`old` without what `path` names; None if it names nothing."""
    step, rest = path[0], path[1:]
    container = opened(old)
    if container is None:
        return None
    place: Json = step.key
    if isinstance(container, list):
        place = len(container) - 1 if step.last else step.index
        if place is None or not 0 <= place < len(container):
            return None
    elif place not in container:
        return None
    if not rest:
        del container[place]
        return container
    left = without(container[place], rest)
    if left is None:
        return None
    container[place] = left
    return container
