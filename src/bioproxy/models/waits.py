"""What requests that wait for a model wait for. Each moment has one name, so the parts of a wait add up to the whole.

The schedule knows why no model comes yet, the lives know how far a stop or a start is; both say it here, once for all
that wait for one model. The seconds only grow, so a request's own wait is the difference of two looks, however late it
joined. Pure.

    in_use        for requests of other models (or of this one's process, which has to go) to end
    linger        for a model in the middle of tool calls
    min_resident  for a model that was loaded a moment ago
    stop, save    for the models that make room: their end, and the save of what they hold
    pause         before the second try of a start
    start         for the process to be healthy
    attach        to find out what it is
    restore       to bring its KV cache back
"""

from __future__ import annotations

from typing import Literal

Part = Literal["", "in_use", "linger", "min_resident", "stop", "save", "pause", "start", "attach", "restore"]

COMING = frozenset({"start", "attach", "restore"})
GOING = frozenset({"stop", "save"})


class Waits:
    """One model's waits: what they are for now, and the seconds of each part since the program began."""

    __slots__ = ("part", "seconds", "since")

    def __init__(self) -> None:
        self.part: Part = ""
        self.since = 0.0
        self.seconds: dict[Part, float] = {}

    def turn(self, part: Part, now: float) -> None:
        """From `now` on `part` is waited for."""
        if part != self.part:
            self.seconds = self.until(now)
            self.part, self.since = part, now

    def until(self, now: float) -> dict[Part, float]:
        seconds = dict(self.seconds)
        seconds[self.part] = seconds.get(self.part, 0.0) + now - self.since
        return seconds


def between(before: dict[Part, float], after: dict[Part, float]) -> dict[Part, float]:
    """The seconds of each part from one look to a later one; parts that took none are left out."""
    found = ((part, seconds - before.get(part, 0.0)) for part, seconds in after.items())
    return {part: seconds for part, seconds in found if seconds > 0.0}
