"""`bioproxy doctor`: why prompts were read again, by client and cause, and the three changes that would save most."""

from __future__ import annotations

import time

import msgspec

from bioproxy.activity import Place
from bioproxy.admin.doctor_api import DoctorReport
from bioproxy.cli.command import Command
from bioproxy.cli.output import Output, count, duration
from bioproxy.doctor.totals import Total

COLUMNS = ("client", "app", "model", "cause", "where", "misses", "tokens again", "time lost", "the last one")
RIGHT = (5, 6, 7)


def doctor(command: Command) -> int:
    """Print what was found since the program's start."""
    report = msgspec.convert(command.client().get("/api/doctor"), DoctorReport)
    if command.output.json:
        command.output.document(report)
        return 0
    show(command.output, report)
    return 0


def show(output: Output, report: DoctorReport) -> None:
    """A table of misses, then what to do about them."""
    known = report.doctor
    lost = sum(row.seconds for row in report.totals)
    if report.totals:
        output.table(COLUMNS, [cells(row) for row in report.totals], right=RIGHT)
    skipped = f", {count(known.skipped)} not (too many at once, or larger than doctor.memory)" if known.skipped else ""
    output.line(
        f"{count(known.requests)} requests were looked at in {duration(time.time() - known.since)}{skipped}; "
        f"{duration(lost)} went into evaluating again what had been evaluated before",
        "dim",
    )
    for number, one in enumerate(report.advice, 1):
        output.line(f"{number}. {one.sentence} ({duration(one.seconds)}, {count(one.tokens)} tokens)")
        if one.place is not None:
            output.line(f"   {words(one.place)}", "dim")


def cells(row: Total) -> tuple[str, ...]:
    last = row.note or (words(row.place) if row.place is not None else "")
    cause = row.cause.replace("_", " ")
    figures = count(row.misses), count(row.tokens), duration(row.seconds)
    return (row.client or "-", row.app or "-", row.model or "-", cause, row.where or "-", *figures, last)


def words(place: Place) -> str:
    """The texts around a difference, on one line."""
    before, now = (f"`{place.same}{text}`".replace("\n", "⏎") for text in (place.before, place.now))
    return f"{place.label}, character {place.at:,}: {before} → {now}"
