"""Reading the last events of a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.wire.sse import data_lines


@pytest.mark.parametrize(
    ("tail", "payloads"),
    [
        (b"", []),
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b'1"}\n\ndata: 2\n\n', [b"2"]),
        (b"data: 1\r\n\r\ndata:2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\n\ndata: 2", [b"1"]),
        (b": comment\n\nevent: x\ndata: 1\n\n", [b"1"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:  two blanks\n\n", [b" two blanks"]),
        (b"id: 1\n\ndata\n\n", []),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
    ],
)
def test_complete_events_only(tail: bytes, payloads: list[bytes]) -> None:
    """Events that are whole give their payloads; one cut at the beginning or unfinished at the end does not."""
    assert data_lines(tail) == payloads


@given(st.lists(st.text(alphabet='abc{}": ', min_size=1), max_size=8), st.integers(min_value=0, max_value=200))
def test_a_cut_loses_the_first_event_only(payloads: list[str], cut: int) -> None:
    """Cut anywhere, what comes behind the cut event is read as in the whole stream."""
    whole = [b"data: " + payload.encode() + b"\n\n" for payload in payloads]
    stream = b"".join(whole)
    kept = data_lines(stream[min(cut, len(stream)) :])
    expected = data_lines(stream)
    assert expected == [payload.encode() for payload in payloads]
    assert len(kept) <= len(expected)
    assert kept[1:] == expected[len(expected) - len(kept) + 1 :]
