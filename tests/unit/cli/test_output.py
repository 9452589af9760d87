"""What the command line prints."""

from __future__ import annotations

import io
import json

import pytest

from bioproxy.cli import output as module
from bioproxy.cli.output import Output, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def make(**options: object) -> tuple[Output, io.StringIO, io.StringIO]:
    stream, notes = io.StringIO(), io.StringIO()
    arguments = {"stream": stream, "notes": notes, "environment": {}} | options
    return Output(**arguments), stream, notes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (54 << 20, "54.0 MiB"), (3 << 50, "3072.0 TiB")],
)
def test_sizes_for_people(number: int | None, text: str) -> None:
    """Bytes are shown in the unit that fits."""
    assert module.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.0874, "87 ms"), (4.84, "4.8 s"), (90, "90.0 s"), (720, "12 min"), (10800, "3 h"),
        (6 * 86400, "6 days"),
    ],
)  # fmt: skip
def test_durations_for_people(seconds: float | None, text: str) -> None:
    """Seconds are shown in the unit that fits."""
    assert module.duration(seconds) == text


def test_counts_have_separators() -> None:
    """Tokens by the thousand are read more easily."""
    assert (module.count(61233), module.count(None)) == ("61,233", "-")


def test_a_table_is_aligned_and_has_no_trailing_blanks() -> None:
    """Columns are as wide as their widest text; numbers stand on the right."""
    out, stream, _ = make()
    out.table(("prefix", "tokens"), [("@code", "12"), ("@manual", "3,310")], right=(1,))
    assert stream.getvalue() == "prefix   tokens\n@code        12\n@manual   3,310\n"


def test_colour_is_for_terminals() -> None:
    """A pipe gets plain text, and so does who set NO_COLOR or has a dumb terminal."""
    assert make()[0].paint("x", "red") == "x"
    assert make(stream=Terminal())[0].paint("x", "red") == "\x1b[31mx\x1b[0m"
    assert make(stream=Terminal(), environment={"NO_COLOR": "1"})[0].paint("x", "red") == "x"
    assert make(stream=Terminal(), environment={"TERM": "dumb"})[0].paint("x", "red") == "x"


def test_rows_may_be_coloured() -> None:
    """A table's row shows its state in a colour."""
    out, stream, _ = make(colour=True)
    out.table(("state",), [("failed",)], colours=lambda row: "red" if row[0] == "failed" else "")
    assert "\x1b[31mfailed\x1b[0m" in stream.getvalue()


def test_a_document_is_json() -> None:
    """`--json` prints one document that a program can read."""
    out, stream, _ = make()
    out.document({"state": "saved", "tokens": 3})
    assert json.loads(stream.getvalue()) == {"state": "saved", "tokens": 3}


def test_progress_is_quiet_where_there_is_no_terminal() -> None:
    """A log file gets two lines, not a thousand."""
    out, stream, notes = make()
    with Progress(out, "model") as progress:
        for done in range(100):
            progress.update(done, 100)
    assert notes.getvalue() == "model ...\nmodel: 99%\n"
    assert stream.getvalue() == ""


def test_a_bar_is_drawn_over_itself_ten_times_a_second() -> None:
    """A terminal sees a bar; updates in between cost nothing."""
    notes, now = Terminal(), 0.0
    out, _, _ = make(notes=notes)
    with Progress(out, "warm", clock=lambda: now) as progress:
        progress.update(50, 100, "half")
        progress.update(51, 100, "not shown")
        now = 0.2
        progress.say("saving")
    drawn = notes.getvalue().split("\r\x1b[K")
    assert drawn[1] == "warm  " + "█" * 15 + "░" * 15 + " half"
    assert drawn[2:] == ["warm  saving", "warm  saving\n"]


@pytest.mark.parametrize(("terminal", "widest"), [(True, 40), (False, 517)])
def test_a_table_is_cut_to_the_terminal(*, terminal: bool, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last column gives way, with a sign for it; a pipe gets everything."""
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal() if terminal else io.StringIO()
    Output(stream=stream, colour=False).table(("model", "last error"), [("a", "x" * 510), ("b", "short")])
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) == widest
    assert lines[1].endswith("…") == terminal
    assert lines[2] == "b      short"


def test_a_name_that_is_no_utf_8_is_printed() -> None:
    """As the system gives it; in JSON as an escape."""
    output, stream, _ = make(json=True)
    output.document({"model": "bad\udcff.gguf"})
    assert json.loads(stream.getvalue()) == {"model": "bad\udcff.gguf"}
