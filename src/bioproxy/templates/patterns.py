"""Patterns in a template: which files `<{src/**/*.py}>` means, in path order.

`*` and `?` stand for letters of one name, `**` for any number of folders; nothing else is special, so `[id].tsx` is a
name. As in a shell they do not match a leading dot (`.env` would be a bad surprise in a prompt), and `**` does not
follow links to folders, which may go in circles. What `.gitignore` names is left out, `.git` always.

The names are sorted as text, which is the order of `git ls-files`: the same tree gives the same prompt on every
machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from bioproxy.errors import TemplateError
from bioproxy.templates.gitignore import Levels, descend, enter, ignored

MOST = 200_000  # directory entries for one pattern; `<{/**/*}>` must end in a sentence, not in an hour
SPECIAL = re.compile(r"[*?]")


def is_pattern(name: str) -> bool:
    """Whether an include's path has a character that stands for others."""
    return SPECIAL.search(name) is not None


def matches(pattern: str, folder: Path) -> list[tuple[str, Path]]:
    """(name as the pattern would write it, path) of each file under `folder` that fits, in path order.

    TemplateError where that means looking at too many files.
    """
    names = [name for name in pattern.split("/") if name not in {"", "."}]
    first = next(place for place, name in enumerate(names) if is_pattern(name))
    lead = "/" if pattern.startswith("/") else ""
    shown = lead + "".join(f"{name}/" for name in names[:first])
    base = Path(os.path.normpath(folder / shown)).absolute()
    if (entered := enter(base)) is None:
        return []
    levels, path = entered
    walk = Walk(pattern)
    found = {shown + name: base / name for name in walk.files(base, names[first:], levels=levels, path=path, name="")}
    return sorted(found.items())


@lru_cache(maxsize=512)
def expression(name: str) -> re.Pattern[str]:
    """One name of a pattern as a regular expression; a leading dot must be written."""
    letters = ("[^/]*" if letter == "*" else "[^/]" if letter == "?" else re.escape(letter) for letter in name)
    return re.compile(("" if name.startswith(".") else r"(?!\.)") + "".join(letters), re.DOTALL)


class Walk:
    """One walk through the folders for one pattern, with a limit on how much it looks at."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.seen = 0

    def files(self, folder: Path, names: list[str], *, levels: Levels, path: str, name: str) -> Iterator[str]:
        """The files (paths relative to the start) that fit `names` in `folder`.

        `path` is the folder's place in its project, for `levels` of ignore rules; `name` its place below the start.
        """
        deep = names[0] == "**"
        rest = (names[1:] or ["*"]) if deep else names
        if rest[0] == "**":  # `**/**` means what `**` means
            yield from self.files(folder, rest, levels=levels, path=path, name=name)
            return
        wanted, last = expression(rest[0]), len(rest) == 1
        for entry in self.entries(folder):
            place = f"{path}/{entry.name}" if path else entry.name
            here = f"{name}/{entry.name}" if name else entry.name
            fits = wanted.fullmatch(entry.name) is not None
            if is_folder(entry):
                below = self.below(entry, names, rest, deep=deep, fits=fits and not last)
                if below and not ignored(levels, place, folder=True):
                    inner = descend(levels, folder / entry.name, place)
                    for remaining in below:
                        yield from self.files(folder / entry.name, remaining, levels=inner, path=place, name=here)
            elif fits and last and not ignored(levels, place, folder=False):
                yield here

    def below(
        self, entry: os.DirEntry[str], names: list[str], rest: list[str], *, deep: bool, fits: bool
    ) -> list[list[str]]:
        """What is left of the pattern inside a folder; nothing where it need not be entered."""
        found = [rest[1:]] if fits else []
        if deep and not entry.name.startswith(".") and not entry.is_symlink():
            found.append(names)
        return [] if entry.name == ".git" else found

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What is in a folder; nothing where it cannot be listed."""
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            return []
        self.seen += len(found)
        if self.seen > MOST:
            raise TemplateError(f"<{{{self.pattern}}}> means looking at more than {MOST:,} files; name a folder")
        return found


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False
