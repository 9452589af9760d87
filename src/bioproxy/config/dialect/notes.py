"""What is wrong, unknown or doubtful in a config: collected on the way, with the place where it stands.

A place is a path of keys, kept as a tuple, for model IDs have dots in them. Its line is looked up in the tree only when
there is something to say. Several files share one tree: a node's line carries the number of its file, so that no node
has to know more than a number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeAlias

from bioproxy.config.tree import Node, Origin
from bioproxy.errors import ConfigError, Problem

Path: TypeAlias = tuple[str | int, ...]
VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
GROWTH_LIMIT = 8 << 20  # characters by which macros and variables make a configuration longer, all texts together
WORK_LIMIT = 256 << 20  # characters that are looked at for macros, over and over; half a second
MOST_UNKNOWN = 100  # unknown keys that are named one by one

STRIDE = 10_000_000  # lines per file; a file of that many lines is refused for its size


def dotted(path: Path) -> str:
    """A path for people: ("apiKeys", 0) is "apiKeys[0]"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def locate(root: Node, path: Path) -> int:
    """The line of the deepest part of a path that stands in the tree; 0 where nothing of it does."""
    line = 0
    node = root
    for part in path:
        inside: Node | None = None
        if isinstance(node.value, dict):
            inside = node.value.get(str(part))
        elif isinstance(node.value, tuple) and isinstance(part, int):
            inside = node.value[part] if part < len(node.value) else None
        if inside is None:
            break
        node = inside
        line = node.line
    return line


def shift(node: Node, file: int) -> Node:
    """The same tree with lines that tell the file's number, too."""
    line = node.line + file * STRIDE
    match node.value:
        case dict():
            return Node({key: shift(child, file) for key, child in node.value.items()}, line, node.raw)
        case tuple():
            return Node(tuple(shift(child, file) for child in node.value), line, node.raw)
        case _:
            return Node(node.value, line, node.raw)


class Notes:
    """Collects problems (they refuse the config), unknown keys and warnings (they do not)."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = tuple(files)
        self.root = Node({})
        self.problems: list[Problem] = []
        self.unknown: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unset: set[str] = set()  # environment variables that were complained about
        self.judged: set[Path] = set()  # places about which nothing more is to be said
        self.absent: set[str] = set()  # names of models that only a peer has which is left out
        self.grown = self.worked = 0
        self.unnamed = 0  # unknown keys beyond those that are named

    def where(self, line: int) -> str:
        """File and line of a node's line."""
        file, local = divmod(line, STRIDE)
        if file >= len(self.files):
            return ""
        return f"{self.files[file]}:{local}" if local else self.files[file]

    def origin(self, line: int) -> Origin:
        """The same, as the origin of a value."""
        return Origin("file", self.where(line))

    def at(self, path: Path, message: str) -> Problem:
        """A message about a path of the tree."""
        return Problem(message, where=self.where(locate(self.root, path)), key=dotted(path))

    def complain(self, path: Path, message: str) -> None:
        """Something that refuses the config, unless it is only the consequence of what was said already."""
        if path not in self.judged and not (self.unset and self.unset & set(VARIABLE.findall(message))):
            self.problems.append(self.at(path, message))

    def complain_line(self, line: int, message: str, key: str = "") -> None:
        """The same, where the line is known and the tree is not complete yet."""
        self.problems.append(Problem(message, where=self.where(line), key=key))

    def warn(self, path: Path, message: str) -> None:
        """Something that is accepted and does not mean what it seems to."""
        self.warnings.append(self.at(path, message))

    def grow(self, size: int, where: Path | int) -> None:
        """A text is about to become longer by `size` characters; ends the reading where all that is too much.

        Of the whole configuration, for what is bounded text by text still fills a memory by their number. `where` is
        the text's path, or its line.
        """
        self.grown += max(0, size)
        if self.grown > GROWTH_LIMIT:
            said = f"macros and variables make the configuration longer by more than {GROWTH_LIMIT:,} characters"
            self.give_up(f"{said}; most likely a long one is used too often", where)

    def work(self, size: int, where: Path | int) -> None:
        """A text of `size` characters is looked at for macros; ends the reading where that is done too often."""
        self.worked += size
        if self.worked > WORK_LIMIT:
            self.give_up("macros that use macros that use macros: filling them in would take too long", where)

    def give_up(self, message: str, where: Path | int) -> NoReturn:
        """End here, with what was found so far and this."""
        if isinstance(where, int):
            self.complain_line(where, message)
        else:
            self.problems.append(self.at(where, message))
        raise ConfigError(tuple(dict.fromkeys(self.problems)))

    def note_unknown(self, path: Path, sentence: Callable[[], str]) -> None:
        """List a key that nobody knows; of very many only the first, for each is compared with all that there are."""
        if len(self.unknown) < MOST_UNKNOWN:
            self.unknown.append(self.at(path, sentence()))
        else:
            self.unnamed += 1

    def stop_at_problems(self) -> None:
        """End here when there are problems, for what follows would be consequences."""
        if self.problems:
            raise ConfigError(tuple(dict.fromkeys(self.problems)))
