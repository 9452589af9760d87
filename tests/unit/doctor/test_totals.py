"""What the findings add up to, as `/api/doctor` and `bioproxy doctor` tell it."""

from __future__ import annotations

import io
from typing import Any, get_args

from bioproxy.activity import Cause, Finding, Place, Record
from bioproxy.admin.doctor_api import DoctorReport
from bioproxy.cli.doctor import show
from bioproxy.cli.output import Output
from bioproxy.doctor.doctor import DoctorStatistics
from bioproxy.doctor.totals import MENDS, MOST, Totals, advice

Json = Any
PLACE = Place("system message", "content", 24, "Today is ", "Monday", "Tues\nday")


def totals_of(*findings: tuple[str, Finding]) -> Totals:
    totals = Totals()
    for client, finding in findings:
        record = Record(
            id="r", started=0.0, method="POST", path="/x", endpoint="/x", client=client, app="opencode", model="m"
        )
        totals.add(record, finding)
    return totals


def miss(cause: Cause = "system_changed", **more: Json) -> Finding:
    return Finding(**{"cause": cause, "tokens": 100, "seconds": 2.0, "place": PLACE, **more})


def test_misses_add_up_by_client_cause_and_place() -> None:
    """The costliest first; which message it was does not matter, because that moves with every turn."""
    late = [Place(f"message {number} (user)") for number in (3, 5)]
    rows = totals_of(
        ("anna", miss()),
        ("anna", miss()),
        ("bert", miss(seconds=9.0)),
        *(("anna", miss("message_changed", place=place, seconds=0.5)) for place in late),
    ).worst()
    assert [(row.client, row.where, row.misses, row.seconds) for row in rows] == [
        ("bert", "system message", 1, 9.0),
        ("anna", "system message", 2, 4.0),
        ("anna", "an earlier message", 2, 1.0),
    ]


def test_the_three_changes_that_would_save_most() -> None:
    """Each with what it would have saved; what cannot be mended is no advice."""
    causes: list[Cause] = ["tools_changed", "evicted", "system_changed", "not_saved", "first_time"]
    rows = totals_of(*(("anna", miss(cause, seconds=number + 1.0)) for number, cause in enumerate(causes))).worst()
    assert [one.seconds for one in advice(rows)] == [4.0, 3.0, 2.0]
    assert advice(rows)[1].sentence == (
        "opencode (anna) on m: system changed (system message) in 1 request: move what changes to the end of "
        "the last message, take it out, or let clients.stabilize pin it"
    )


def test_every_cause_that_costs_has_a_mend() -> None:
    """What costs nothing needs none."""
    assert set(get_args(Cause)) - set(MENDS) == {"first_time", "grown", "field_changed", "not_comparable"}


def test_many_clients_do_not_fill_the_memory() -> None:
    """The rest counts as one."""
    rows = totals_of(*((f"c{number}", miss()) for number in range(MOST + 50))).worst()
    assert len(rows) == MOST + 1
    assert next(row.misses for row in rows if row.client == "others") == 50


def report(totals: Totals) -> DoctorReport:
    rows = totals.worst()
    known = DoctorStatistics(requests=1234, skipped=2, waiting=0, prompts=3, bytes=4, since=0.0)
    return DoctorReport(known, tuple(rows), tuple(advice(rows)))


def printed(totals: Totals) -> list[str]:
    stream = io.StringIO()
    show(Output(stream=stream), report(totals))
    return stream.getvalue().splitlines()


def test_what_the_command_prints() -> None:
    """A table, how much was looked at, and the advice with the words that it is about."""
    lines = printed(totals_of(("anna", miss()), ("anna", miss("tools_changed", place=None, note="2 new", seconds=0.5))))
    assert lines[0].split()[:3] == ["client", "app", "model"]
    assert "system changed  system message" in lines[1]
    assert "`Today is Monday` → `Today is Tues⏎day`" in lines[1]
    assert lines[2].endswith("2 new")
    assert lines[3].startswith("1,234 requests were looked at in ")
    assert "2 not (too many at once, or larger than doctor.memory)" in lines[3]
    assert lines[4].startswith(
        "1. opencode (anna) on m: system changed (system message) in 1 request: move what changes"
    )
    assert lines[5] == "   system message, character 24: `Today is Monday` → `Today is Tues⏎day`"


def test_nothing_was_lost() -> None:
    """Then there is only the line that says so."""
    assert len(printed(Totals())) == 1
