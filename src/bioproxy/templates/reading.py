"""From a template's file to its filled text: every include found, read and put in its place.

A path is looked for in the template's own folder first, then in the working folder; one that exists as it is written
wins over its meaning as a pattern. An include by name is put in as it is, its last newline too. A pattern puts each
file under a line with its name, `==> src/app.py <==`, as `head` and `tail` do, so that the model can tell one file
from the next.

All that is wrong with a template is collected, so that one start shows all of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.errors import Problem, TemplateError
from bioproxy.templates.files import Entry, Look
from bioproxy.templates.parse import Filled, Place, faults, parse, version_of
from bioproxy.templates.patterns import is_pattern, matches

MOST = 256 << 20  # bytes of one filled template
BOM = "\ufeff"


class Source(msgspec.Struct, frozen=True):
    """Where a file's text stands in the filled template: `start` and `size` in bytes, messages counting nothing."""

    name: str
    start: int
    size: int


class Reading(msgspec.Struct, frozen=True):
    """A template as its files are now; with `problems`, `filled` is None.

    `key` tells without a look at the text whether anything changed.
    """

    key: tuple[bytes, ...]
    filled: Filled | None
    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]


class Text(msgspec.Struct, frozen=True):
    """One stretch of the filled text and the file that it comes from; `text` None is the place of the message.

    `key` tells whether it is still the same.
    """

    name: str
    text: str | None
    key: bytes = b""


def read_template(prefix: str, path: Path, *, folder: Path, look: Look, before: Reading | None = None) -> Reading:
    """Read the template of `prefix` with all that it includes; `before` is returned itself if nothing changed.

    `folder` is the working folder. Never raises: what is wrong stands in `problems`.
    """
    reader = Reader(prefix, path, folder=folder, look=look)
    texts = reader.texts()
    if reader.problems:
        return broken(reader.problems)
    key = tuple(text.key for text in texts)
    if before is not None and before.key == key:
        return before
    parts = parts_of(texts)
    filled = Filled(prefix=prefix, version=version_of(parts), parts=parts)
    return Reading(key, filled, sources_of(texts), ())


def broken(problems: Sequence[Problem]) -> Reading:
    """A template that cannot be filled in."""
    return Reading((), None, (), tuple(problems))


def unread(prefix: str, path: Path, message: str) -> Reading:
    """One of which only `message` is known."""
    return broken([Problem(message, where=str(path), key=f"prefixes.{prefix}")])


class Reader:
    """Reads one template once, and collects what is wrong with it."""

    def __init__(self, prefix: str, path: Path, *, folder: Path, look: Look) -> None:
        self.prefix = prefix
        self.path = path
        self.folders = (path.parent, folder)
        self.look = look
        self.size = 0
        self.problems: list[Problem] = []

    def fault(self, message: str, *, line: int = 0) -> None:
        """Note something wrong, with its place."""
        where = f"{self.path}:{line}" if line else str(self.path)
        self.problems.append(Problem(message, where=where, key=f"prefixes.{self.prefix}"))

    def texts(self) -> list[Text]:
        """The filled template in stretches."""
        try:
            own = self.look.text(self.path, shown=self.path.name)
            key = self.look.entry(self.path, shown=self.path.name).digest
        except (TemplateError, files.Stuck) as error:
            self.fault(error.message)
            return []
        segments = parse(own.removeprefix(BOM))
        for line, message in faults(segments):
            self.fault(message, line=line)
        texts: list[Text] = []
        for segment in segments:
            texts.extend(self.place(segment) if isinstance(segment, Place) else [Text(self.path.name, segment, key)])
        return texts

    def place(self, place: Place) -> list[Text]:
        """What goes into one place; faults are noted with the place's line."""
        if place.message:
            return [Text("", None)]
        if not place.name:
            return []
        try:
            texts = self.include(os.path.expanduser(place.name))  # Path raises for `~nobody`
        except (TemplateError, files.Stuck) as error:
            self.fault(error.message, line=place.line)
            return []
        except OSError as error:
            self.fault(f"{place.name}: cannot be read: {files.reason(error)}", line=place.line)
            return []
        self.size += sum(len(text.text or "") for text in texts)
        if self.size > MOST:
            self.fault(f"with {place.name} the template is larger than {MOST >> 20} MiB", line=place.line)
            return []
        return texts

    def include(self, name: str) -> list[Text]:
        """The file called `name`, or the files that it means as a pattern."""
        for folder in self.folders:
            path = folder / name
            status = files.found(path)
            if status is not None and stat.S_ISDIR(status.st_mode):
                raise TemplateError(f"{name} is a folder; write <{{{name.rstrip('/')}/**}}> for the files in it")
            if status is not None:
                return [self.named(name, path)]
        if is_pattern(name):
            return self.pattern(name)
        raise TemplateError(f"there is no file {name} {self.places(name)}")

    def places(self, name: str) -> str:
        """Where `name` was looked for, for a message."""
        if Path(name).is_absolute():
            return "on this machine"
        return "in " + " or in ".join(dict.fromkeys(map(str, self.folders)))

    def pattern(self, name: str) -> list[Text]:
        """The text files that a pattern means, each under a line with its name; the template itself is none of them."""
        for folder in self.folders:
            found = [self.listed(printable(shown), path) for shown, path in matches(name, folder) if path != self.path]
            if texts := [text for text in found if text is not None]:
                return texts
        raise TemplateError(f"{name} fits no text file {self.places(name)} that .gitignore does not name")

    def named(self, shown: str, path: Path) -> Text:
        """One file that was asked for by name."""
        text = self.look.text(path, shown=shown)
        return Text(shown, text, key_of(shown, self.look.entry(path, shown=shown)))

    def listed(self, shown: str, path: Path) -> Text | None:
        """One file of a pattern under a line with its name; None if it is binary."""
        entry = self.look.entry(path, shown=shown)
        if entry.text is None:
            return None
        end = "" if entry.text.endswith("\n") or not entry.text else "\n"
        return Text(shown, f"==> {shown} <==\n{entry.text}{end}", key_of(shown, entry))


def key_of(name: str, entry: Entry) -> bytes:
    """What tells an include from another: its name, and a digest of what it says."""
    return name.encode() + b"\0" + entry.digest


def printable(name: str) -> str:
    """A file's name as it can stand in a line of text: names may hold newlines, and bytes that are no UTF-8."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def parts_of(texts: Sequence[Text]) -> tuple[str, ...]:
    """The texts between the places for the message."""
    parts: list[list[str]] = [[]]
    for text in texts:
        if text.text is None:
            parts.append([])
        else:
            parts[-1].append(text.text)
    return tuple("".join(part) for part in parts)


def sources_of(texts: Sequence[Text]) -> tuple[Source, ...]:
    """Where each stretch stands, in bytes."""
    sources, start = [], 0
    for text in texts:
        size = len(text.text.encode()) if text.text is not None else 0
        if text.text is not None:
            sources.append(Source(text.name, start, size))
        start += size
    return tuple(sources)
