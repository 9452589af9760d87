"""Reading the end of an event stream (HTML standard, 9.2: server-sent events).

The engine's own figures stand in the last events of an answer, and only the last bytes of an answer are kept
(relay.Tail). So the first event here may be cut: it is left out. Nothing else in wire looks into a stream; the relay
hands bytes on as they come. Pure: no loop, clock or socket.
"""

from __future__ import annotations

import re

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
LINE_END = re.compile(rb"\r\n|\n|\r")
WHOLE = (b"data:", b"event:", b"id:", b"retry:", b":")  # what a line of a stream begins with


def data_lines(tail: bytes) -> list[bytes]:
    """The payloads of the complete `data:` events in the last bytes of a stream, in order; lines joined by a newline.

    An event at the beginning that was cut, and one at the end that has no empty line behind it, are left out.
    """
    events = EVENT_END.split(tail)[:-1]
    if events and not events[0].lstrip(b"\r\n").startswith(WHOLE):
        del events[0]
    return [payload for event in events if (payload := payload_of(event)) is not None]


def payload_of(event: bytes) -> bytes | None:
    """The joined `data:` lines of one event, without the blank behind the colon; None where it has none."""
    lines = [line[5:] for line in LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join([line[1:] if line.startswith(b" ") else line for line in lines]) if lines else None
