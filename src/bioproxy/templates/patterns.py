"""Patterns in a template: which files `<{src/**/*.py}>` means, in path order.

`*` and `?` stand for letters of one name, `**` for any number of folders; nothing else is special, so `[id].tsx` is a
name. As in a shell they do not match a leading dot (`.env` would be a bad surprise in a prompt), and `**` does not
follow links to folders, which may go in circles. What `.gitignore` names is left out, `.git` always.

The names are sorted as text, which is the order of `git ls-files`: the same tree gives the same prompt on every
machine.

A walk lists every folder once, whatever the pattern: it goes with all the places in the pattern at which it may be, for
with a dozen `**` one place at a time there are millions of ways to the same folder. A name is matched by RE2, in linear
time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from bioproxy import files
from bioproxy.errors import TemplateError
from bioproxy.templates.gitignore import Levels, descend, enter, ignored

MOST = 200_000  # directory entries for one pattern; `<{/**/*}>` must end in a sentence, not in an hour
LONGEST_NAME = 255  # bytes of a file's name that a system takes; a pattern that wants more fits nothing
MOST_TESTS = 20_000_000  # comparisons of a name with a pattern's or with a rule of a `.gitignore`
SPECIAL = ("*", "?")


def is_pattern(name: str) -> bool:
    """Whether an include's path has a character that stands for others."""
    return any(letter in name for letter in SPECIAL)


def matches(pattern: str, folder: Path) -> list[tuple[str, Path]]:
    """(name as the pattern would write it, path) of each file under `folder` that fits, in path order.

    TemplateError if that means looking at too many files.
    """
    names = [name for name in pattern.split("/") if name not in {"", "."}]
    first = next(place for place, name in enumerate(names) if is_pattern(name))
    lead = "/" if pattern.startswith("/") else ""
    shown = lead + "".join(f"{name}/" for name in names[:first])
    base = Path(os.path.normpath(folder / shown)).absolute()
    if (entered := enter(base)) is None:
        return []
    levels, path = entered
    walk = Walk(pattern, names[first:])
    return sorted((shown + name, base / name) for name in walk.files(base, levels, path))


@lru_cache(maxsize=512)
def expression(name: str) -> Callable[[bytes], object]:
    """What says whether a file's name, in UTF-8, fits one name of a pattern; a leading dot must be written."""
    import re2  # 2.5 MB that only patterns need

    while "**" in name:
        name = name.replace("**", "*")
    if len(name.replace("*", "")) > LONGEST_NAME:
        return lambda _name: None
    letters = ("[^/]*" if letter == "*" else "[^/]" if letter == "?" else re2.escape(letter) for letter in name)
    options = re2.Options()
    options.never_capture, options.log_errors = True, False
    fits: Callable[[bytes], object] = re2.compile("".join(letters), options).fullmatch
    return fits if name.startswith(".") else lambda found: not found.startswith(b".") and fits(found)


class Walk:
    """One walk through the folders for the names of one pattern, with a limit on how much it looks at."""

    def __init__(self, pattern: str, names: list[str]) -> None:
        self.pattern = pattern
        self.names = [*names, "*"] if names[-1] == "**" else names
        self.seen = self.tests = 0

    def places(self, at: int) -> list[int]:
        """Where in the pattern one may be after its first `at` names: `**` stands for no folder, too."""
        end = at
        while self.names[end] == "**":  # `**/**` means what `**` means
            end += 1
        return [end] if end == at else [end - 1, end]

    def files(self, base: Path, levels: Levels, path: str) -> Iterator[str]:
        """The files that fit, as paths from `base`, whose own place in its project, for `levels` of rules, is `path`.

        What waits to be listed is a folder, where in the pattern one may be inside it, and its path from `base`.
        """
        waiting = [(base, self.places(0), levels, path, "")]
        while waiting:
            folder, places, levels, path, name = waiting.pop()
            for entry in self.entries(folder, len(places) + sum(len(rules) for _, rules in levels)):
                place, here = (f"{start}/{entry.name}" if start else entry.name for start in (path, name))
                fits = [at for at in places if self.fits(at, entry.name)]
                if is_folder(entry):
                    below = self.below(entry, places, fits)
                    if below and not ignored(levels, place, folder=True):
                        inner = folder / entry.name
                        waiting.append((inner, below, descend(levels, inner, place), place, here))
                elif fits[-1:] == [len(self.names) - 1] and not ignored(levels, place, folder=False):
                    yield here

    def fits(self, at: int, name: str) -> bool:
        """Whether a file's or folder's name fits the pattern's at `at`."""
        wanted = self.names[at]
        if wanted == "**":
            return False
        return bool(expression(wanted)(name.encode(errors="replace"))) if is_pattern(wanted) else wanted == name

    def below(self, entry: os.DirEntry[str], places: list[int], fits: list[int]) -> list[int]:
        """Where in the pattern one is inside a folder; nowhere if it need not be entered."""
        if entry.name == ".git":
            return []
        found = {at + 1 for at in fits if at + 1 < len(self.names)}
        if not entry.name.startswith(".") and not entry.is_symlink():
            found.update(at for at in places if self.names[at] == "**")
        return sorted({place for at in found for place in self.places(at)})

    def entries(self, folder: Path, tests: int) -> list[os.DirEntry[str]]:
        """What is in a folder; nothing if it cannot be listed. `tests`: what each name is compared with."""
        try:
            found = files.listed(folder)
        except OSError:
            return []
        self.seen += len(found)
        self.tests += len(found) * tests
        if self.seen > MOST:
            raise TemplateError(f"<{{{self.pattern}}}> means looking at more than {MOST:,} files; name a folder")
        if self.tests > MOST_TESTS:
            raise TemplateError(f"<{{{self.pattern}}}> and the .gitignore files are too much work; name a folder")
        return found


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads in circles is none."""
    try:
        if not entry.is_symlink():
            return entry.is_dir()
        with files.touching(entry):  # a link may lead to a network folder
            return entry.is_dir()
    except OSError:
        return False
