"""The tables of `bioproxy demo`: how they are printed, and when they are said to show too little."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec

from bioproxy.cli import demo, demo_agent, demo_swap
from bioproxy.cli.demo_program import PART, SOURCES, Measured, Program, excerpts, read_timing
from bioproxy.cli.output import Output

COLD = demo_swap.Swapped("cold", 6.0, 0, 3700, stop=0.01, save=0.0, start=0.25, restore=0.0)


def later(**changes: Any) -> demo_swap.Swapped:
    """A row of the conversation that came back."""
    values: Any = {"first": 0.5, "cached": 3690, "evaluated": 20, "stop": 0.01, "save": 0.0, "start": 0.25}
    return demo_swap.Swapped(**{"state": "swapped back", **values, "restore": 0.02, **changes})


def test_the_second_table_has_the_parts_of_each_swap() -> None:
    """And how many times sooner than cold, where that makes sense."""
    other = later(state=demo_swap.BETWEEN, save=0.07, cached=0, evaluated=17)
    printed = io.StringIO()
    demo_swap.show(Output(stream=printed), [COLD, other, later()])
    head, *rows = printed.getvalue().strip().splitlines()
    assert head.split()[:5] == ["two", "models", "first", "token", "cached"]
    assert head.split()[5:] == ["evaluated", "stop", "save", "start", "restore"]
    assert rows[0].split() == ["cold", "6.0", "s", "0", "3,700", "10", "ms", "0", "ms", "250", "ms", "0", "ms"]
    assert rows[1].split()[-8:] == ["10", "ms", "70", "ms", "250", "ms", "20", "ms"]
    assert rows[2].endswith("20 ms  12x sooner")


def test_nothing_is_said_of_what_came_back_soon() -> None:
    """A tenth of cold, or little more than the engine's own start."""
    assert demo_swap.complaints([COLD, later()]) == []
    assert demo_swap.complaints([COLD, later(first=0.59, start=0.1)]) == []
    assert demo_swap.complaints([COLD, later(first=1.2, start=0.95)]) == []


def test_what_came_back_late_is_told() -> None:
    """With what it may be due to."""
    [said] = demo_swap.complaints([COLD, later(first=0.7)])
    assert said.startswith("swapped back: the first token came after 700 ms, more than a tenth")


def test_what_did_not_come_back_is_told() -> None:
    """However soon it was."""
    [said] = demo_swap.complaints([COLD, later(cached=0, evaluated=3700)])
    assert "3,700 tokens were evaluated again" in said


def test_the_other_models_row_is_not_judged() -> None:
    """It is no part of the conversation."""
    assert demo_swap.complaints([COLD, later(state=demo_swap.BETWEEN, first=3.0, cached=0)]) == []


def test_the_first_table_is_judged_by_its_ratios() -> None:
    """And by the length of its template."""
    cold, warm = Measured("cold", 6.0, 0, 4000), Measured("warm", 0.1, 3990, 12)
    assert demo.complaints([cold, warm]) == []
    assert "more than a tenth" in demo.complaints([cold, Measured("warm", 0.7, 3990, 12)])[0]
    assert "has only 500 tokens" in demo.complaints([Measured("cold", 6.0, 0, 500), warm])[0]


def test_the_agents_table_says_how_much_sooner_each_session_begins() -> None:
    """And is judged by what came back, and by the clock beyond the engine's start."""
    cold = demo_agent.Session("cold", 9.0, 0, 17_000, start=0.3)
    warm, started = (demo_agent.Session("later", first, 16_990, 15, start=0.7) for first in (0.3, 0.95))
    printed = io.StringIO()
    demo_agent.show(Output(stream=printed), [cold, warm])
    head, *rows = printed.getvalue().strip().splitlines()
    assert head.split() == ["an", "agent", "first", "token", "cached", "evaluated", "start"]
    assert rows[0].split() == ["cold", "9.0", "s", "0", "17,000", "300", "ms"]
    assert rows[1].endswith("15  700 ms  30x sooner")
    assert demo_agent.complaints([cold, warm, started]) == []
    assert "more than a tenth" in demo_agent.complaints([cold, msgspec.structs.replace(started, start=0.1)])[0]
    assert "were evaluated again" in demo_agent.complaints([cold, msgspec.structs.replace(warm, evaluated=900)])[0]
    assert "has only 500 tokens" in demo_agent.complaints([msgspec.structs.replace(cold, evaluated=500)])[0]


def test_server_timing_is_read() -> None:
    """Names with milliseconds; what is none of that is passed over."""
    assert read_timing("queue;dur=1.5, swap;dur=300,nonsense, x;dur=y") == {"queue": 0.0015, "swap": 0.3}


def test_what_the_prompts_are_about_does_not_grow() -> None:
    """A cold prompt must cost the same when a source is twice as long: its beginning is taken, in whole lines."""
    found = excerpts()
    assert list(found) == list(SOURCES)
    assert all(PART - 120 < len(text) <= PART and text.endswith("\n") for text in found.values())


def test_an_error_in_the_programs_log_is_found(tmp_path: Path) -> None:
    """As the log writes it; but the end of an engine that the demo itself killed is none."""
    program = Program(tmp_path, {})
    lines = ("[INFO] a said [ERROR", "[ERROR] the disk is on fire", "[ERROR] a (pid 7) was ended by SIGKILL")
    program.log.write_text("\n".join(lines))
    assert program.errors() == ["[ERROR] the disk is on fire"]
