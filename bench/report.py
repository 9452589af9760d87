"""Rows of figures, and how they are shown: one Markdown table per section."""

from __future__ import annotations

import datetime as dt
import os
import platform
from pathlib import Path

import msgspec

KEPT = Path(__file__).parent / "kept"  # sections that other programs write: what runs for hours


class Row(msgspec.Struct, frozen=True):
    """One figure, its peer in the same run, what it shall be, and whether it is."""

    name: str
    ours: str
    peer: str
    bound: str
    holds: bool


def verdict(title: str, rows: list[Row]) -> str:
    """A section as Markdown."""
    lines = [f"## {title}", "", "| figure | bioproxy | beside it | wanted | holds |", "|---|---|---|---|---|"]
    lines += [f"| {r.name} | {r.ours} | {r.peer} | {r.bound} | {'yes' if r.holds else '**no**'} |" for r in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The processor and how many of it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return f"{(names or [platform.processor()])[0]}, {os.cpu_count()} cores, Python {platform.python_version()}"


def page(sections: list[str]) -> str:
    """The whole of results.md, with what other programs measured."""
    today = dt.datetime.now(tz=dt.UTC).date().isoformat()
    head = f"# Figures\n\nWritten by `make bench` on {today}; {machine()}. Medians; ratios count more than seconds.\n"
    if os.environ.get("BEFORE"):
        head += "What stands after `before` is an earlier build of bioproxy, measured in the same run.\n"
    kept = [path.read_text() for path in sorted(KEPT.glob("*.md"))]
    return "\n".join([head, *sections, *kept])
