"""What the fake engines of one test do, in one file that all of them add to: the proof of what ran at once.

A line of JSON per event, each in one write to a file opened for appending, so that lines of several processes do not
mix: `start`, `beside` (who else of the same file lived at that moment), `listening`, `healthy`, `probed` (the first
good answer to a health check), `looked` (somebody asked what this is), `begin`, `held` and `end` of requests,
`sigterm`, `child`, `logged`, `exit`. `t` is the system's monotonic clock, the same in every process.

An engine that is killed writes no `exit`, so the ends of lives alone prove nothing. `beside` does: of two that live at
once, the later one has seen the earlier.
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = Any


def group() -> int:
    """The process group; 0 on Windows, which has none."""
    return 0 if sys.platform == "win32" else os.getpgrp()


class Journal:
    """The event log, as one engine writes it; nothing is written where `path` is empty."""

    def __init__(self, path: str, model: str) -> None:
        self.path, self.model = path, model
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else -1

    def note(self, event: str, **more: Json) -> None:
        """Add one line."""
        if self.file >= 0:
            line = {"t": time.monotonic(), "pid": os.getpid(), "model": self.model, "event": event, **more}
            os.write(self.file, json.dumps(line).encode() + b"\n")

    def begin(self) -> int:
        """Say that we are there, and who is there too; how many starts of this model the log tells of by now."""
        if not self.path:
            return 1
        self.note("start", group=group())
        here: dict[int, str] = {}
        count = 0
        for told in self.lives():
            here.pop(told["pid"], None)
            if told["event"] == "start":
                here[told["pid"]] = told["model"]
                count += told["model"] == self.model
        del here[os.getpid()]
        self.note("beside", others=sorted(model for pid, model in here.items() if lives(pid)))
        return count

    def lives(self) -> list[Json]:
        """The beginnings and ends of lives so far."""
        with open(self.path, encoding="utf-8") as lines:  # pathlib costs 10 ms
            return [json.loads(line) for line in lines if '"event": "start"' in line or '"event": "exit"' in line]


def lives(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another system, without /proc
