"""What `bioproxy top` and `bioproxy requests` make of what they are told, without a program that tells it."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.cli.models import short
from bioproxy.cli.output import Output
from bioproxy.cli.requests import cells, colour, ended, events
from bioproxy.cli.top import cut, rates_of, speed, write

Json = Any
ROW: Json = {
    "model": "a",
    "state": "ready",
    "since": 1.0,
    "starts": 1,
    "memory": 2 << 20,
    "running": 1,
    "waiting": 0,
    "last_used": 2.0,
    "reason": "",
    "tokens": 4000,
    "prompt_per_second": 812.3,
    "tokens_per_second": 41.26,
}
REQUEST: Json = {
    "model": "a",
    "path": "/x",
    "stage": "answer",
    "position": 0,
    "reason": "",
    "left": None,
    "started": 1.0,
    "elapsed": 2.5,
    "bytes": 0,
}
RECORD: Json = {
    "id": "1",
    "started": 1.0,
    "status": 0,
    "outcome": "client_left",
    "model": "",
    "client": "",
    "endpoint": "other",
    "path": "/strange",
    "queue": 0.0,
    "swap": 1.5,
    "first_byte": None,
    "total": 2.0,
    "tokens_cached": None,
    "tokens_evaluated": 1200,
    "error": "one\ntwo",
    "why": "because",
}


def drawn(answer: Json, rates: Json) -> list[str]:
    """The lines of `top`."""
    page = Output(stream=io.StringIO(), colour=False)
    write(page, page, answer, rates=rates)
    assert isinstance(page.stream, io.StringIO)
    return page.stream.getvalue().splitlines()


def test_top_shows_figures_of_models_and_requests() -> None:
    """Memory, speeds of the newest answer, and bytes per second between two looks."""
    lines = drawn({"models": [ROW], "requests": [{**REQUEST, "bytes": 3000}]}, {("a", "/x", 1.0): 1024.0})
    assert lines[0] == "1 of 1 models ready, 2.0 MiB; 1 requests, 0 wait for a model"
    assert lines[3].split()[-3:] == ["4,000", "812", "41.3"]
    assert lines[6].split() == ["a", "/x", "2.5", "s", "is", "being", "answered", "2.9", "KiB", "1.0", "KiB"]


def test_top_shows_what_was_used_last_first() -> None:
    """And what does not run last."""
    rows = [{**ROW, "model": name, "last_used": used, "state": state} for name, used, state in (
        ("old", 1.0, "ready"), ("off", 9.0, "stopped"), ("new", 5.0, "failed"),
    )]  # fmt: skip
    assert [line.split()[0] for line in drawn({"models": rows, "requests": []}, {})[3:]] == ["new", "old", "off"]


def test_a_rate_is_what_came_between_two_looks() -> None:
    """Of a request that was there before; one that only just came has none."""
    before = [{**REQUEST, "bytes": 100}]
    after = [{**REQUEST, "bytes": 700}, {**REQUEST, "started": 9.0, "bytes": 50}]
    assert rates_of(before, after, seconds=2.0) == {("a", "/x", 1.0): 300.0}
    assert rates_of(before, after, seconds=0.0) == {}


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.0, "0.0"), (41.26, "41.3"), (1234.5, "1,234")])
def test_speeds_are_short(value: float | None, text: str) -> None:
    """As people say them."""
    assert speed(value) == text


def test_a_line_is_cut_where_the_terminal_ends() -> None:
    """Colours take no room, and are switched off at the end."""
    assert cut("plain text", 5) == "plain"
    assert cut("\x1b[32mgreen\x1b[0m and more", 7) == "\x1b[32mgreen\x1b[0m a\x1b[0m"


@given(st.text(alphabet=st.characters(exclude_characters="\x1b"), max_size=50), st.integers(0, 60))
def test_what_is_cut_fits(text: str, width: int) -> None:
    """Whatever it says."""
    assert cut(text, width) == text[:width]


def test_an_error_is_one_line() -> None:
    """Of many, the first, without what announces the others, and from its cause on, however long that is."""
    assert short("it ended; last lines of its log:\nboom") == "it ended"
    assert short('upstream command exited prematurely: a said "no memory" and ended') == 'a said "no memory" and ended'
    assert short("x" * 500) == "x" * 500


def test_a_request_in_the_table() -> None:
    """What is not known is a dash; waiting for a model counts as waiting; an error says more than why."""
    shown = cells(RECORD)
    assert shown[1:] == ("-", "client_left", "-", "-", "/strange", "1.5 s", "-", "2.0 s", "-", "1,200", "one")
    assert (colour(shown), colour(cells({**RECORD, "outcome": "error"}))) == ("dim", "red")


@given(st.data())
def test_events_are_found_however_they_are_cut(data: st.DataObject) -> None:
    """Comments and other events between them, in pieces of any size."""
    records = [{"id": str(number)} for number in range(3)]
    blocks = [b": events of bioproxy\nretry: 3000\n\n"]
    for record in records:
        body = msgspec.json.encode({"event": "RequestEnded", "record": record})
        blocks += [b"event: RequestEnded\ndata: %b\n\n" % body, b": alive\n\n", b"event: WarmupChecked\ndata: {}\n\n"]
    raw = b"".join(blocks)
    places = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
    assert list(ended(events(pieces))) == records
