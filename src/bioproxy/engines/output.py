"""What a child process writes: its end is kept for error messages, and all of it is passed on as it comes.

How the bytes are read differs by system (child.py, job.py); what is done with them does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

PAUSE = 0.004  # seconds between two reads
LINES, LONGEST = 200, 4096


class LogTail:
    """The end of an engine's output, for error messages: the newest `lines` lines, of `longest` bytes each at most.

    An engine may write 100 MB, without a newline, in any encoding. So the cost of a piece does not depend on how many
    lines are in it, and what is kept is decoded only when it is asked for, as text that no terminal acts upon. The
    bytes as they came are in the model's log (logbook.py). `bytes_in` counts everything that was ever fed.
    """

    def __init__(self, *, lines: int = LINES, longest: int = LONGEST) -> None:
        self.kept: deque[bytes] = deque(maxlen=lines)
        self.longest = longest
        self.open = b""  # the line that has not ended yet, its beginning
        self.bytes_in = 0

    def feed(self, data: bytes) -> None:
        self.bytes_in += len(data)
        first, *others = data.rsplit(b"\n", self.kept.maxlen or 0)
        if b"\n" in first:  # more lines than are kept: the first ones are lost anyway
            self.open = b""
            first = first[first.rindex(b"\n") + 1 :]
        lines = [self.open + first, *others]
        if b"\r" in data or b"\r" in self.open:
            lines = [self.shortened(line) for line in lines]
        elif len(data) > self.longest - len(self.open):  # less than that holds no line that is too long
            lines = [line[: self.longest] for line in lines]
        self.open = lines.pop()
        self.kept.extend(lines)

    def shortened(self, line: bytes) -> bytes:
        """The beginning of what a line shows: a carriage return inside it hides what stood before."""
        shown = line.rstrip(b"\r").rfind(b"\r") + 1
        return line[shown : shown + self.longest]

    def lines(self) -> tuple[str, ...]:
        """What is kept, oldest first, as printable text; of a progress line that overwrote itself the last state."""
        return tuple(readable(piece) for piece in self.pieces())

    def last(self) -> str:
        """The last line that says anything, or nothing."""
        lines = map(readable, reversed(self.pieces()))
        return next((line for line in lines if line.strip()), "")

    def pieces(self) -> list[bytes]:
        return [*self.kept, self.open] if self.open else [*self.kept]


def readable(line: bytes) -> str:
    """`line` as text that no terminal acts upon."""
    text = line.rstrip(b"\r").decode("utf-8", "replace")
    return "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)


class Heard:
    """A child's output on its way: kept in `tail`, told to `sink`."""

    def __init__(self, *, tail: LogTail, sink: Callable[[bytes], None] | None = None) -> None:
        self.tail = tail
        self.sink = sink

    def tell(self, data: bytes) -> None:
        """Pass a piece on. If the sink fails, it gets no more, and reading goes on: that is not the child's fault."""
        self.tail.feed(data)
        if self.sink is not None:
            try:
                self.sink(data)
            except Exception:
                log.exception("what hears an engine's output failed and hears no more of it")
                self.sink = None
