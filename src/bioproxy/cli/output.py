"""What the command line prints: tables, figures for people, a progress bar; the same facts as JSON with `--json`.

Results go to stdout, everything about the way there (progress, hints, errors) to stderr, so that a pipe gets what was
asked for and nothing else. Colour is for terminals only, and `NO_COLOR` (no-color.org) switches it off. Nothing here
knows what it prints.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, TextIO, TypeAlias

import msgspec

from bioproxy import files
from bioproxy.errors import BioproxyError

Json: TypeAlias = Any
Colour = Literal["", "bold", "dim", "red", "green", "yellow", "cyan"]
CODES: dict[Colour, str] = {
    "": "",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "cyan": "\x1b[36m",
}
RESET = "\x1b[0m"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
BAR = 30  # characters
KIB = 1024
MINUTE, HOUR, DAY = 60, 3600, 86400


def count(number: int | None) -> str:
    """`61,233`; a dash if it is not known."""
    return "-" if number is None else f"{number:,}"


def size(number: int | None) -> str:
    """Bytes for people: `54.2 MiB`."""
    if number is None:
        return "-"
    value, unit = float(number), 0
    while value >= KIB and unit < len(UNITS) - 1:
        value, unit = value / KIB, unit + 1
    return f"{number} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds for people, two figures that matter: `87 ms`, `4.8 s`, `12 min`, `3 h`, `6 days`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 2 * MINUTE:
        return f"{seconds:.1f} s"
    for length, name in ((2 * HOUR, "min"), (2 * DAY, "h")):
        if seconds < length:
            return f"{seconds / (MINUTE if name == 'min' else HOUR):.0f} {name}"
    return f"{seconds / DAY:.0f} days"


class Output:
    """Where a command prints. `json`: the result is one JSON document; `colour`: None lets the terminal decide."""

    def __init__(
        self,
        *,
        json: bool = False,
        colour: bool | None = None,
        stream: TextIO | None = None,
        notes: TextIO | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.json = json
        self.stream = stream or sys.stdout
        self.notes = notes or sys.stderr
        environment = os.environ if environment is None else environment
        wanted = not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        self.colour = self.stream.isatty() and wanted if colour is None else colour

    def paint(self, text: str, colour: Colour) -> str:
        """`text` in `colour`, if colours are shown."""
        return f"{CODES[colour]}{text}{RESET}" if self.colour and colour else text

    def line(self, text: str = "", colour: Colour = "") -> None:
        """One line of the result. BioproxyError if it cannot be written: a disk may be full."""
        try:
            self.stream.write(self.paint(text, colour) + "\n")
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            let_go(self.stream)
            raise BioproxyError(f"cannot write the result: {files.reason(error)}") from error

    def note(self, text: str) -> None:
        """One line beside the result, on stderr."""
        self.notes.write(text + "\n")
        self.notes.flush()

    def document(self, value: Json) -> None:
        """The result as JSON, indented; anything that msgspec can write."""
        try:
            self.line(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
        except UnicodeEncodeError:  # the name of a file that is no UTF-8
            self.line(json.dumps(msgspec.to_builtins(value), indent=2))

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[int] = (),
        colours: Callable[[Sequence[str]], Colour] = lambda _row: "",
    ) -> None:
        """Rows under `columns`, each as wide as its widest text; columns in `right` are aligned there.

        On a terminal no row is wider than it: the last column is cut. A pipe gets everything.
        """
        widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
        most = shutil.get_terminal_size().columns if self.stream.isatty() else None
        self.line(cut(aligned(columns, widths, right), most), "bold")
        for row in rows:
            self.line(cut(aligned(row, widths, right), most), colours(row))


def let_go(stream: TextIO) -> None:
    """Nothing more is written there; else Python tries once more at its own end, and complains."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def aligned(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    """One row of a table, without blanks at its end."""
    pairs = zip(row, widths, strict=True)
    cells = [text.rjust(width) if n in right else text.ljust(width) for n, (text, width) in enumerate(pairs)]
    return "  ".join(cells).rstrip()


def cut(text: str, most: int | None) -> str:
    """`text` in `most` characters, with `…` for what was left out; None: whole."""
    return text if most is None or len(text) <= most else text[: max(0, most - 1)] + "…"


class Progress:
    """A bar for long work, on a terminal; elsewhere a line at the beginning and one at the end.

    Used as a context manager; `update` may be called as often as one likes, it draws ten times a second at most.
    """

    def __init__(self, output: Output, title: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.output = output
        self.title = title
        self.clock = clock
        self.live = output.notes.isatty()
        self.drawn = float("-inf")
        self.text = ""

    def __enter__(self) -> Self:
        if not self.live:
            self.output.note(f"{self.title} ...")
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.draw(self.text, force=True)
            self.output.notes.write("\n")
        elif self.text:
            self.output.note(f"{self.title}: {self.text}")

    def update(self, done: float, total: float, text: str = "") -> None:
        """Show `done` of `total`, and `text` after the bar."""
        share = min(1.0, done / total) if total > 0 else 0.0
        filled = round(share * BAR)
        self.text = text or f"{share:.0%}"
        self.draw(f"{'█' * filled}{'░' * (BAR - filled)} {self.text}")

    def say(self, text: str) -> None:
        """Show `text` instead of a bar."""
        self.text = text
        self.draw(text)

    def draw(self, text: str, *, force: bool = False) -> None:
        """Draw over the line, on a terminal."""
        now = self.clock()
        if not self.live or (now - self.drawn < 0.1 and not force):
            return
        self.drawn = now
        width = shutil.get_terminal_size().columns - 1
        self.output.notes.write("\r\x1b[K" + f"{self.title}  {text}"[:width])
        self.output.notes.flush()
