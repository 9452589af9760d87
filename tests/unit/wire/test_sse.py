"""Reading the last event of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.wire.sse import field, last_event


@pytest.mark.parametrize(
    ("tail", "data"),
    [
        (b"", None),
        (b"data: 1\n\ndata: 2\n\n", b"2"),
        (b'1"}\n\ndata: 2\n\n', b"2"),
        (b"data: 1\r\n\r\ndata:2\r\n\r\n", b"2"),
        (b"data: 1\r\rdata: 2\r\r", b"2"),
        (b"data: 1\n\ndata: 2", b"2"),
        (b"data: 1\n\n: comment\n\n", b"1"),
        (b"data: 1\r\n\r\n: comment\r\n\r\n:\r\n\r\n", b"1"),
        (b"event: x\ndata: 1\n\n\n\n", b"1"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data:  two blanks\n\n", b" two blanks"),
        (b"data: 1\n\nid: 1\n\n", b"1"),
        (b"data: [DONE]\n\n", b"[DONE]"),
        (b"\ndata: 1\n\n", b"1"),
        (b"data: 1\n\n" + b":\n\n" * 5000, b"1"),
        (b": ping\n\ndata: 1\r\n\r\ndata: 2\r\n\r\n", b"2"),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n: ping\n\n", b"2"),
        (b"data: 1\n\r\ndata: 2\n\r\n", b"2"),
    ],
)
def test_the_last_event_that_says_something(tail: bytes, data: bytes | None) -> None:
    """Comments and empty lines are passed over; its own empty line need not be there yet."""
    assert field(last_event(tail)[0], b"data") == data


def test_a_cut_within_an_empty_line() -> None:
    """The line end that is left belongs to no event."""
    assert last_event(b"\ndata: 1\n\n") == (b"data: 1", False)


def test_a_named_event() -> None:
    """Name and data are fields like any other; a word that only begins like one is none."""
    event, begins = last_event(b"data: 0\n\nevent: done\ndatabase: 2\ndata: 1\n\n")
    assert begins
    assert (field(event, b"event"), field(event, b"data"), field(event, b"id")) == (b"done", b"1", None)


@given(st.lists(st.text(alphabet='abc{}": ', min_size=1), min_size=1, max_size=8), st.integers(0, 200))
def test_a_cut_is_seen(payloads: list[str], cut: int) -> None:
    """Cut anywhere, the last event is the stream's, or the end of it, and it is said which."""
    whole = [b"data: " + payload.encode() + b"\n\n" for payload in payloads]
    stream = b"".join(whole)
    tail = stream[min(cut, len(stream) - 3) :]
    event, begins = last_event(tail)
    assert whole[-1].rstrip(b"\n").endswith(event)
    if begins:
        assert event == whole[-1].rstrip(b"\n")
