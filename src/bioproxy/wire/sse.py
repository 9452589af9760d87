"""Reading the end of an event stream (HTML standard, 9.2: server-sent events).

How an answer ended, and what it cost, stands in its last events, and only the last bytes of an answer are kept
(relay.Tail). Nothing else in wire looks into a stream; the relay hands bytes on as they come. Pure: no loop, clock or
socket.
"""

from __future__ import annotations

from collections.abc import Iterator

EVENT_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")  # a proxy's comment may end otherwise than the events
OPENINGS = (b"data:", b"event:", b"id:", b"retry:", b":")  # how a stream begins
SAYING = (b"data", b"event", b"error")  # fields that make a block of lines an event; `error` is older llama-servers'


def last_start(data: bytes, end: int) -> int:
    """The index at which the event begins that reaches up to or over `end`; 0 if that lies before `data`."""
    found = 0
    for mark in EVENT_ENDS:
        place = data.rfind(mark, found, end)
        if place >= 0:
            found = place + len(mark)
    return found


def last_events(tail: bytes) -> Iterator[tuple[bytes, bool]]:
    """The events in the last bytes of a stream, the newest first, and whether each begins there.

    False, it may be the end of one. What says nothing (comments, empty lines) is passed over. The newest need not have
    its empty line yet: some clients read line by line.
    """
    lines: list[bytes] = []
    for line in reversed(tail.lstrip(b"\r\n").splitlines()):  # a cut may fall between two line ends
        if line:
            lines.append(line)
            continue
        if any(each.partition(b":")[0] in SAYING for each in lines):
            yield b"\n".join(reversed(lines)), True
        lines = []
    yield b"\n".join(reversed(lines)), False


def last_event(tail: bytes) -> tuple[bytes, bool]:
    """The newest of them."""
    return next(last_events(tail))


def field(event: bytes, name: bytes) -> bytes | None:
    """The lines of a field, joined, each without the blank after the colon; None if the event has none."""
    mark = name + b":"
    lines = [line[len(mark) :] for line in event.splitlines() if line.startswith(mark)]
    return b"\n".join([line[1:] if line.startswith(b" ") else line for line in lines]) if lines else None
