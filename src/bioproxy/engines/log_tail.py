"""The end of an engine's output: what an operator needs to read when it has died.

An engine may write 100 MB, without a newline, in any encoding, as fast as a pipe goes. So the tail takes pieces of
bytes as they come, keeps the last 200 lines of at most 4 KiB each, and decodes them only when somebody looks. The cost
per piece does not depend on how many lines are in it. What is kept is for sentences and error messages, so it is shown
as text that no terminal acts upon; whoever wants the bytes as they came follows the model's log (logbook.py).
"""

from __future__ import annotations

from collections import deque

LINES, LONGEST = 200, 4096


class LogTail:
    """The newest `lines` lines, of `longest` bytes each at most; `bytes_in` counts everything that was ever fed."""

    def __init__(self, *, lines: int = LINES, longest: int = LONGEST) -> None:
        self.kept: deque[bytes] = deque(maxlen=lines)
        self.longest = longest
        self.open = b""  # the line that has not ended yet, its beginning
        self.bytes_in = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of output."""
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
        pieces = [*self.kept, self.open] if self.open else [*self.kept]
        return tuple(readable(piece) for piece in pieces)

    def last(self) -> str:
        """The last line that says anything, or nothing."""
        return next((line for line in reversed(self.lines()) if line.strip()), "")


def readable(line: bytes) -> str:
    """`line` as text that no terminal acts upon."""
    text = line.rstrip(b"\r").decode("utf-8", "replace")
    return "".join(character if character.isprintable() or character == "\t" else "\ufffd" for character in text)
