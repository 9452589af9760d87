"""Reading the end of an event stream (HTML standard, 9.2: server-sent events).

How an answer ended, and what it cost, stands in its last events, and only the last bytes of an answer are kept
(relay.Tail). Nothing else in wire looks into a stream; the relay hands bytes on as they come. Pure: no loop, clock or
socket.
"""

from __future__ import annotations

EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
SAYING = (b"data", b"event")  # fields that make a block of lines an event; comments and the like are none


def last_start(data: bytes, end: int) -> int:
    """Where the event begins of which `end` is the end or in the middle; 0 where it begins before `data`."""
    for mark in EVENT_ENDS:  # a stream keeps to one of them, so the first is nearly always found
        place = data.rfind(mark, 0, end)
        if place >= 0:
            return place + len(mark)
    return 0


def last_event(tail: bytes) -> tuple[bytes, bool]:
    """The last event in the last bytes of a stream, and whether it begins there: False, it may be the end of one.

    What says nothing (comments, empty lines) is passed over. The event need not have its empty line yet: some clients
    read line by line.
    """
    end = len(tail)
    while True:
        while end and tail[end - 1] in b"\r\n":
            end -= 1
        start = last_start(tail, end)
        event = tail[start:end].lstrip(b"\r\n")  # a cut may fall between two line ends
        if not start or any(line.partition(b":")[0] in SAYING for line in event.splitlines()):
            return event, start > 0
        end = start


def field(event: bytes, name: bytes) -> bytes | None:
    """The lines of a field, joined, each without the blank behind the colon; None where the event has none."""
    mark = name + b":"
    lines = [line[len(mark) :] for line in event.splitlines() if line.startswith(mark)]
    return b"\n".join([line[1:] if line.startswith(b" ") else line for line in lines]) if lines else None
