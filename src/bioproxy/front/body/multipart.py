"""`multipart/form-data` (RFC 7578): finding a field in a body, and changing it without touching anything else.

A body is scanned for its delimiters, never taken apart and built again: a form with a recording of fifty megabytes is
forwarded with the order, the headers and the bytes of all its parts as they came, and only the value that had to change
is another one. What is lenient: line ends of a single LF (some scripts), a missing last delimiter (the part before it
does not count), text before the first delimiter. Names come with and without quotes. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import msgspec

# a quoted value that does not end is the rest of the header: looking for its end anew at each `;` takes hours
PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"([^"\\]*(?:\\.[^"\\]*)*)(?:"|\\?\Z)|([^;]*))', re.DOTALL)
TAIL = re.compile(rb"--|[ \t]*\r?\n")
BLANK = re.compile(rb"\r?\n\r?\n")
DISPOSITION = re.compile(rb"(?:\A[ \t]*|\n)content-disposition[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE)
ESCAPE = re.compile(r'\\(["\\])')
MOST_PARTS = 1000  # further ones are passed on unseen
MOST_HEAD = 16 << 10  # bytes of a part's headers
MOST_HEADS = 256 << 10  # bytes of all parts' headers; later parts are passed on unseen
MOST_PARAMETERS = 20  # of a header
LONGEST_BOUNDARY = 200  # RFC 2046 allows 70


class Part(msgspec.Struct, frozen=True):
    """One part: its name, whether it is a file, and where its value begins and ends."""

    name: str
    file: bool
    start: int
    end: int


def parameters(header: str) -> dict[str, str]:
    """The parameters of a header such as `form-data; name="model"`, their names in lower case."""
    found: dict[str, str] = {}
    for each in islice(PARAMETER.finditer(header), MOST_PARAMETERS):
        name, quoted, plain = each.groups("")
        found.setdefault(name.lower(), ESCAPE.sub(r"\1", quoted) if quoted else plain.strip())
    return found


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type names; empty if it names none that can be used."""
    boundary = parameters(content_type).get("boundary", "").encode("latin-1", "replace")
    return boundary if len(boundary) <= LONGEST_BOUNDARY else b""


def delimiters(body: bytes, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
    """Where each delimiter begins (with the line end before it) and ends, and whether it is the last one."""
    dashed = b"--" + boundary
    place = 0 if body.startswith(dashed) else body.find(b"\n" + dashed) + 1 or -1
    for _ in range(MOST_PARTS):
        if place < 0:
            return
        after = TAIL.match(body, place + len(dashed))
        if after is not None:
            yield line_end(body, place), after.end(), after[0] == b"--"
        place = body.find(b"\n" + dashed, place + len(dashed)) + 1 or -1


def line_end(body: bytes, place: int) -> int:
    """Where the line end before `place` begins."""
    return max(0, place - 2 if body[place - 2 : place] == b"\r\n" else place - 1)


def parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    """The parts of a body in their order."""
    begin = spent = 0
    for start, end, last in delimiters(body, boundary):
        if begin:
            part = read(body, begin, start)
            spent += part.start - begin if part is not None else min(start - begin, MOST_HEAD)
            if part is not None:
                yield part
        if last or spent > MOST_HEADS:
            return
        begin = end


def read(body: bytes, begin: int, end: int) -> Part | None:
    """The part between two delimiters; None if it has no head that names a field."""
    blank = BLANK.search(body, begin, min(end, begin + MOST_HEAD))
    if blank is None or body[begin : begin + 1] in {b"\r", b"\n"}:
        return None
    line = DISPOSITION.search(body[begin : blank.start()])
    found = parameters(line[1].decode(errors="replace")) if line is not None else {}
    return Part(found["name"], "filename" in found, blank.end(), end) if "name" in found else None


def value(body: bytes, boundary: bytes, field: str) -> str | None:
    """The text of the first part of that name which is no file; None if there is none."""
    for part in parts(body, boundary):
        if part.name == field and not part.file:
            return body[part.start : part.end].decode(errors="replace")
    return None


def with_value(body: bytes, boundary: bytes, field: str, text: str) -> bytes:
    """The body with `text` as the value of every part of that name which is no file; every other byte as it was."""
    pieces: list[bytes] = []
    kept = 0
    for part in parts(body, boundary):
        if part.name == field and not part.file:
            pieces += [body[kept : part.start], text.encode()]
            kept = part.end
    return b"".join([*pieces, body[kept:]]) if pieces else body
