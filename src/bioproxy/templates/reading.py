"""From a template's file to its filled text: every include found, read and put in its place.

A path is looked for in the template's own folder first, then in the working folder; one that exists as it is written
wins over its meaning as a pattern. An include by name is put in as it is, its last newline too. A pattern puts each
file under a line with its name, `==> src/app.py <==`, as `head` and `tail` do, so that the model can tell one file
from the next.

All that is wrong with a template is collected, so that one start shows all of it.

**What a change costs**: everything after the first byte that differs is evaluated again.

    src/app.py changed at 12 % of the template: 35,000 of 40,000 tokens again, about 50 s;
    further back it would cost less

The sentence teaches the one thing that makes templates cheap: what changes often belongs to the end. How many tokens a
byte is and how long a token takes is the caller's knowledge (the engine was measured); without it the sentence gives
the share. Only the static beginning counts, the text before the first message: what stands after a message is
evaluated with every request anyway.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.errors import Problem, TemplateError
from bioproxy.prompt import common
from bioproxy.templates.files import Entry, Look
from bioproxy.templates.parse import Filled, Place, faults, parse, version_of
from bioproxy.templates.patterns import is_pattern, matches

MOST = 256 << 20  # bytes of one filled template
BOM = "\ufeff"
EARLY = 0.5  # a change in the first half is worth the advice
MINUTE = 60


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
        where = f"{self.path}:{line}" if line else str(self.path)
        self.problems.append(Problem(message, where=where, key=f"prefixes.{self.prefix}"))

    def texts(self) -> list[Text]:
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


# what a change costs


class Change(msgspec.Struct, frozen=True):
    """The first difference between two texts of a template: in which file, what happened to it, and where.

    `at` and `total` are bytes of the new static beginning; `at` is -1 if only what stands after a message differs.
    """

    name: str
    verb: str  # changed, was added, was removed
    at: int
    total: int

    @property
    def share(self) -> float:
        """Where the change is, 0 (the beginning) to 1."""
        return self.at / self.total if self.total else 0.0


def change_of(old: str, new: str, *, before: Sequence[Source], after: Sequence[Source]) -> Change:
    """Compare two static beginnings; `before` and `after` say which file stands where in the filled templates."""
    one, other = old.encode(), new.encode()
    at = common(one, other)
    if one == other:
        changed = [source.name for source in (*after, *before) if source.start >= at]
        return Change(changed[0] if changed else "the template", "changed", -1, len(other))
    was, now = at_byte(before, at), at_byte(after, at)
    names_before, names_after = {source.name for source in before}, {source.name for source in after}
    if now is not None and now.name not in names_before:
        return Change(now.name, "was added", at, len(other))
    if was is not None and was.name not in names_after:
        return Change(was.name, "was removed", at, len(other))
    found = now or was
    return Change(found.name if found else "the template", "changed", at, len(other))


def at_byte(sources: Sequence[Source], at: int) -> Source | None:
    """The source in which byte `at` lies."""
    return next((source for source in sources if source.start <= at < source.start + source.size), None)


def sentence(change: Change, *, tokens_per_byte: float | None = None, seconds_per_token: float | None = None) -> str:
    """What a change costs, in one sentence."""
    if change.at < 0:
        return f"{change.name} changed after the message: nothing before it is evaluated again"
    text = (
        f"{change.name} {change.verb} at {100 * change.share:.0f} % of the template: {again(change, tokens_per_byte)}"
    )
    if tokens_per_byte is not None and seconds_per_token is not None:
        text += f", about {duration((change.total - change.at) * tokens_per_byte * seconds_per_token)}"
    return text + ("; further back it would cost less" if change.share < EARLY else "")


def again(change: Change, tokens_per_byte: float | None) -> str:
    """How much is evaluated again, in tokens if they are known."""
    if tokens_per_byte is None:
        return f"{100 * (1 - change.share):.0f} % of it again"
    total, left = round(change.total * tokens_per_byte), round((change.total - change.at) * tokens_per_byte)
    return f"{left:,} of {total:,} tokens again"


def duration(seconds: float) -> str:
    """`0.5 s`, `50 s`, `3 min`: as exact as an estimate is."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 2 * MINUTE else f"{seconds / MINUTE:.0f} min"
