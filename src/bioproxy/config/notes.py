"""What is wrong, unknown or doubtful in a config: collected on the way, with the place where it stands.

A place is a path of keys. Its line is looked up in the tree only when there is something to say about it. Every reader
of a source (files, a variable, a flag) writes into such notes; llama-swap's dialect needs two things more of them. What
is only the consequence of a problem that was told already is not told (`judged`, `unset`), and what macros and
variables may cost is counted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn

from bioproxy.config.tree import STRIDE, Node, Origin, Path, dotted, locate
from bioproxy.errors import ConfigError, Problem

VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
GROWTH_LIMIT = 8 << 20  # characters by which macros and variables may make a configuration longer, all texts together
WORK_LIMIT = 256 << 20  # characters that may be searched for macros, repetitions counted; half a second


class Notes:
    """Collects problems (they refuse the config), unknown keys and warnings (they do not).

    `files` are the sources that lines belong to, by number; `origin` is the place of everything if the source has no
    lines.
    """

    def __init__(self, files: Sequence[str] = (), *, origin: Origin | None = None) -> None:
        self.files = tuple(files)
        self.only = origin
        self.root = Node({})
        self.problems: list[Problem] = []
        self.unknown: list[Problem] = []
        self.warnings: list[Problem] = []
        self.unset: set[str] = set()  # environment variables that were complained about
        self.judged: set[Path] = set()  # paths whose problem was told
        self.absent: set[str] = set()  # models that only a left-out peer has
        self.grown = self.worked = 0

    def origin(self, line: int) -> Origin:
        """The file and line that a node's line stands for."""
        if self.only is not None:
            return self.only
        file, local = divmod(line, STRIDE)
        if file >= len(self.files):
            return Origin("file", "")
        return Origin("file", f"{self.files[file]}:{local}" if local else self.files[file])

    def where(self, line: int) -> str:
        return self.origin(line).where

    def at(self, path: Path, message: str) -> Problem:
        """A message about a path of the tree."""
        return Problem(message, where=self.where(locate(self.root, path)), key=dotted(path))

    def complain(self, path: Path, message: str) -> None:
        """Note what refuses the config, unless it is only the consequence of what was told already."""
        if path not in self.judged and not (self.unset and self.unset & set(VARIABLE.findall(message))):
            self.problems.append(self.at(path, message))

    def complain_line(self, line: int, message: str, key: str = "") -> None:
        """Note what refuses the config at a known line, whatever was told before."""
        self.problems.append(Problem(message, where=self.where(line), key=key))

    def warn(self, path: Path, message: str) -> None:
        """Note what is accepted and does not mean what it seems to."""
        self.warnings.append(self.at(path, message))

    def grow(self, size: int, where: Path | int) -> None:
        """Count that a text becomes longer by `size` characters; end the reading if all texts together grow too much.

        A bound for each text would not do: many texts fill a memory, too. `where` is the text's path, or its line.
        """
        self.grown += max(0, size)
        if self.grown > GROWTH_LIMIT:
            said = f"macros and variables make the configuration longer by more than {GROWTH_LIMIT:,} characters"
            self.give_up(f"{said}; most likely a long one is used too often", where)

    def work(self, size: int, where: Path | int) -> None:
        """Count that a text of `size` characters is searched for macros; end the reading if that is done too often."""
        self.worked += size
        if self.worked > WORK_LIMIT:
            self.give_up("macros that use macros that use macros: filling them in would take too long", where)

    def give_up(self, message: str, where: Path | int) -> NoReturn:
        """End the reading with the problems so far and this one."""
        if isinstance(where, int):
            self.complain_line(where, message)
        else:
            self.problems.append(self.at(where, message))
        raise ConfigError(tuple(dict.fromkeys(self.problems)))

    def stop_at_problems(self) -> None:
        """End the reading if there are problems, because what follows would be consequences."""
        if self.problems:
            raise ConfigError(tuple(dict.fromkeys(self.problems)))
