"""Writes the man page bioproxy(1), from docs/cli.md: one text for both, so neither lacks a verb that the other has.

Run `python -m tools.manpage FILE`; `make man` writes build/bioproxy.1. It is no file of the repository, because it is
made from one. Only what that page uses of Markdown is known: headings, paragraphs, lists, tables, code, links.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from bioproxy import __version__

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
ABOUT = "front door of self-hosted LLM servers"
SPAN = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[((?:`[^`]*`|[^\]`])+)\]\([^)]*\)")


def manual(page: str) -> str:
    """The man page of a Markdown page: its first heading and the fence after it become NAME and SYNOPSIS."""
    _, _, rest = page.partition("```console\n")
    usage, _, rest = rest.partition("```\n")
    lines = [
        f'.TH BIOPROXY 1 "" "bioproxy {escaped(__version__)}" "User Commands"',
        ".SH NAME",
        f"bioproxy \\- {ABOUT}",
        ".SH SYNOPSIS",
        f".B {escaped(usage.strip().removeprefix('$ '))}",
        ".SH DESCRIPTION",
        *blocks(rest.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def blocks(lines: Iterable[str]) -> Iterator[str]:
    """The roff of each stretch of lines of one kind."""
    for kind, group in groupby(lines, key=kind_of):
        stretch = list(group)
        if kind == "heading":
            yield from (f".SH {spans(line.lstrip('# ')).upper()}" for line in stretch)
        elif kind == "table":
            yield from table(stretch)
        elif kind == "item":
            yield from items(stretch)
        elif kind == "text":
            yield from (".PP", guarded(spans(" ".join(stretch))))


def kind_of(line: str) -> str:
    """What a line belongs to; "" for an empty one, which ends everything."""
    if line.startswith("#"):
        return "heading"
    if line.startswith("|"):
        return "table"
    return "item" if line.startswith(("- ", "  ")) else "text" if line else ""


def table(rows: list[str]) -> Iterator[str]:
    """A paragraph for each row, the first cell as its tag; the head goes, and so does the line below it."""
    for row in rows[2:]:
        first, *rest = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|")))
        middle = [f"({spans(cell)})" for cell in rest[:-1] if cell]
        yield from (".TP", guarded(bold(first)), guarded(" ".join([*middle, spans(rest[-1])])))


def items(lines: list[str]) -> Iterator[str]:
    """A list; a line that goes on is indented."""
    for item in " ".join(line.strip() if line.startswith("  ") else f"\n{line}" for line in lines).split("\n"):
        if item.strip():
            yield from (".IP \\(bu 2", guarded(spans(item.strip().removeprefix("- "))))


def bold(cell: str) -> str:
    """A cell without its marks, in bold."""
    return f"\\fB{escaped(cell.replace('`', ''))}\\fR"


def spans(text: str) -> str:
    """Code and strong text in bold, links as their text."""
    done, position = "", 0
    for found in SPAN.finditer(text):
        code, strong, link = found.groups()
        done += escaped(text[position : found.start()])
        done += spans(link) if link is not None else f"\\fB{escaped(code or strong)}\\fR"
        position = found.end()
    return done + escaped(text[position:])


def escaped(text: str) -> str:
    """Text in which roff finds nothing to do; a dash stays one that can be copied."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def guarded(line: str) -> str:
    """A line that does not begin as a request to roff does."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def main(target: str) -> None:
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(manual(PAGE.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
