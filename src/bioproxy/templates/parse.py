"""What a template's text says: literal text, places for the message, places for files.

    You are a careful reviewer of this code base:
    <{src/**/*.py}>
    Answer the following. <{message}>

A place is `<{` … `}>` on one line; blanks at its ends do not belong to it. One pass: what is filled in later, a file or
a message, is never scanned, or a user could have any file of the operator read by writing `<{/etc/passwd}>`. So this
module sees the template's own text and nothing else, and there is no way to write a literal `<{x}>`: text that needs
one goes into a file of its own, which the template includes.

Pure: no files here (reading.py reads them), no clock, no loop.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

MESSAGE = "message"
PLACE = re.compile(r"<\{((?:(?!<\{|\}>)[^\r\n])*)\}>")


class Place(msgspec.Struct, frozen=True):
    """A place in a template: what stands between the braces, and the line (from 1) that it is on."""

    name: str
    line: int

    @property
    def message(self) -> bool:
        """Whether the user's message goes here; otherwise a file does."""
        return self.name == MESSAGE


Segment = str | Place


class Filled(msgspec.Struct, frozen=True):
    """A template with every file filled in: the texts between the places for the message, at least two.

    `parts[0]` is the static beginning, which all expansions share; `version` is a digest of all parts (16 hex digits).
    """

    prefix: str
    version: str
    parts: tuple[str, ...]

    def fill(self, message: str) -> str:
        """The whole text with `message` in every place."""
        return message.join(self.parts)

    def growth(self, message: str) -> int:
        """How many characters `fill` adds to what the client sent."""
        return sum(map(len, self.parts)) + len(message) * (len(self.parts) - 2)


def parse(text: str) -> tuple[Segment, ...]:
    """Cut a template's text at its places; empty texts are left out."""
    segments: list[Segment] = []
    end, line = 0, 1
    for found in PLACE.finditer(text):
        literal = text[end : found.start()]
        line += literal.count("\n")
        if literal:
            segments.append(literal)
        segments.append(Place(name=found.group(1).strip(), line=line))
        end = found.end()
    if end < len(text):
        segments.append(text[end:])
    return tuple(segments)


def faults(segments: Sequence[Segment]) -> tuple[tuple[int, str], ...]:
    """What is wrong with a template in itself, each with its line (0: the whole file)."""
    places = [segment for segment in segments if isinstance(segment, Place)]
    found = [
        (place.line, "<{}> names nothing; write <{message}> or <{path/of/a/file}>")
        for place in places
        if not place.name
    ]
    if not any(place.message for place in places):
        found.append((0, "<{message}> is missing; put it where the user's message shall stand"))
    return tuple(found)


def version_of(parts: Sequence[str]) -> str:
    """A digest of a filled template: equal texts with equal places have equal versions."""
    running = hashlib.sha256()
    for part in parts:
        running.update(part.encode())
        running.update(b"\xff")  # stands in no UTF-8 text
    return running.hexdigest()[:16]
