"""Lines as llama-swap writes them: its prefix, Go's times and durations, the line for a request."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest

from bioproxy import log as logs
from bioproxy.config.dialect.settle import TIME_FORMATS
from bioproxy.log import GO_TIMES, access_line, go_duration, go_time

MOMENT = 1136239445.000045  # 2006-01-02T15:04:05.000045 in UTC-7, Go's own example, with a fraction


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local time zone that a test is run in."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def ours() -> Iterator[None]:
    """Our logger, put back as it was."""
    root = logging.getLogger("bioproxy")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


@pytest.mark.parametrize("zone", ["MST+7"], indirect=True)
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ansic", "Mon Jan  2 15:04:05 2006"),
        ("unixdate", "Mon Jan  2 15:04:05 MST 2006"),
        ("rubydate", "Mon Jan 02 15:04:05 -0700 2006"),
        ("rfc822", "02 Jan 06 15:04 MST"),
        ("rfc822z", "02 Jan 06 15:04 -0700"),
        ("rfc850", "Monday, 02-Jan-06 15:04:05 MST"),
        ("rfc1123", "Mon, 02 Jan 2006 15:04:05 MST"),
        ("rfc1123z", "Mon, 02 Jan 2006 15:04:05 -0700"),
        ("rfc3339", "2006-01-02T15:04:05-07:00"),
        ("rfc3339nano", "2006-01-02T15:04:05.000045-07:00"),
        ("kitchen", "3:04PM"),
        ("stamp", "Jan  2 15:04:05"),
        ("stampmilli", "Jan  2 15:04:05.000"),
        ("stampmicro", "Jan  2 15:04:05.000045"),
        ("stampnano", "Jan  2 15:04:05.000045000"),
        ("", ""),
        ("other", ""),
    ],
)
def test_times_are_gos(zone: None, name: str, text: str) -> None:
    """Every layout that logTimeFormat knows, on Go's own example."""
    assert go_time(MOMENT, name) == text


def test_every_format_of_the_configuration_is_there() -> None:
    """A name that the configuration accepts and the log does not know would be no time at all."""
    assert set(GO_TIMES) == set(TIME_FORMATS)


@pytest.mark.parametrize("zone", ["UTC"], indirect=True)
@pytest.mark.parametrize(
    ("name", "created", "text"),
    [
        ("rfc3339", MOMENT, "2006-01-02T22:04:05Z"),
        ("rfc3339nano", 1136239445.0, "2006-01-02T22:04:05Z"),
        ("rfc3339nano", 1136239445.25, "2006-01-02T22:04:05.25Z"),
        ("stampmilli", 1136239445.9999999, "Jan  2 22:04:06.000"),
        ("kitchen", 1136239445.0 - 22 * 3600, "12:04AM"),
        ("kitchen", 1136239445.0 - 12 * 3600, "10:04AM"),
    ],
)
def test_edges_of_gos_times(zone: None, name: str, created: float, text: str) -> None:
    """UTC is Z, noughts at the end of nanoseconds go, a fraction that rounds up carries, midnight is twelve."""
    assert go_time(created, name) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (-1.0, "0s"),
        (1e-9, "1ns"),
        (12.5e-6, "12.5µs"),
        (0.00325, "3.25ms"),
        (0.9999999999, "1s"),
        (1.5, "1.5s"),
        (59.000000001, "59.000000001s"),
        (120.5, "2m0.5s"),
        (3603.0, "1h0m3s"),
        (90061.25, "25h1m1.25s"),
    ],
)
def test_durations_are_gos(seconds: float, text: str) -> None:
    """The unit grows with the duration, and no nought is at the end of a fraction."""
    assert go_duration(seconds) == text


def line(path: str = "/v1/models", agent: str = "curl/8") -> str:
    """The line of one request."""
    return access_line(client="10.0.0.7", method="GET", path=path, status=200, size=1234, agent=agent, seconds=0.0015)


def test_the_line_for_a_request() -> None:
    """What scripts of llama-swap's users take apart."""
    assert line() == '[INFO] Request 10.0.0.7 "GET /v1/models HTTP/1.1" 200 1234 "curl/8" 1.5ms'


@pytest.mark.parametrize(
    "path", ["/wol-health", "/wol-health/x", "/api/performance", "/api/performance/all", "/metrics", "/ui/assets/x.js"]
)
def test_what_machines_ask_all_the_time_is_not_logged(path: str) -> None:
    """Nothing would be left of the history."""
    assert line(path) == ""


def test_a_client_cannot_forge_a_line() -> None:
    """Quotes, line ends and terminal codes of its own are escaped; letters of any language are not."""
    made_up = line(path="/ü\n[INFO] fine", agent='x" 500 \\\x1b[2J')
    assert made_up == '[INFO] Request 10.0.0.7 "GET /ü\\n[INFO] fine HTTP/1.1" 200 1234 "x\\" 500 \\\\\\x1b[2J" 1.5ms'


def test_lines_go_to_the_book_as_well(ours: None) -> None:
    """With llama-swap's words for levels, beside the stream's own form."""
    lines: list[str] = []
    stream = io.StringIO()
    logs.setup(level="debug", stream=stream, write=lines.append)
    log = logging.getLogger("bioproxy.test")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "level %d", level)
    assert lines == ["[DEBUG] level 10", "[INFO] level 20", "[WARN] level 30", "[ERROR] level 40", "[ERROR] level 50"]
    assert stream.getvalue().count("\n") == 5


@pytest.mark.parametrize("zone", ["UTC"], indirect=True)
def test_a_time_stands_in_front_if_wanted(ours: None, zone: None) -> None:
    """And llama-swap's word for the level `warning` is understood."""
    lines: list[str] = []
    logs.setup(level="warn", stream=io.StringIO(), write=lines.append, times="rfc3339")
    record = logging.makeLogRecord({"name": "bioproxy.x", "levelname": "INFO", "levelno": 20, "msg": "a", "created": 0})
    logging.getLogger("bioproxy").handlers[-1].handle(record)
    assert lines == ["1970-01-01T00:00:00Z [INFO] a"]
    assert logging.getLogger("bioproxy").level == logging.WARNING


def test_the_stream_can_be_left_out(ours: None) -> None:
    """Where the book's lines are shown on standard output, each would be seen twice."""
    lines: list[str] = []
    stream = io.StringIO()
    logs.setup(stream=stream, write=lines.append, quiet=True)
    logging.getLogger("bioproxy.test").info("once")
    assert (lines, stream.getvalue()) == (["[INFO] once"], "")


def test_a_fault_keeps_its_trace(ours: None) -> None:
    """In lines behind the sentence."""
    lines: list[str] = []
    logs.setup(stream=io.StringIO(), write=lines.append, quiet=True)
    try:
        int("odd")
    except ValueError:
        logging.getLogger("bioproxy.test").exception("failed")
    assert lines[0].startswith("[ERROR] failed\nTraceback ")
    assert lines[0].endswith("ValueError: invalid literal for int() with base 10: 'odd'")


def test_a_files_name_that_is_no_text_is_one_line_of_json_all_the_same(ours: None) -> None:
    """The bytes stand there as Python has them, escaped."""
    lines: list[str] = []
    logs.setup(stream=io.StringIO(), style="json", show=lines.append, quiet=True)
    logging.getLogger("bioproxy.test").warning("%s cannot be read", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert json.loads(lines[0])["message"] == "caf\udce9 cannot be read"
    assert lines[0].isascii()


def test_a_book_that_fails_stops_nobody(ours: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The one who logs goes on; the fault is told on stderr, as logging does."""

    def full(_: str) -> None:
        raise OSError("full")

    logs.setup(stream=io.StringIO(), write=full)
    logging.getLogger("bioproxy.test").info("line")
    assert "OSError: full" in capsys.readouterr().err
