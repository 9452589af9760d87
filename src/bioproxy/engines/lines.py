"""What engines write as JSON lines, each with the id of the request that it is about.

An engine knows nothing of our ids: llama-server gets one as `X-Request-Id` and does not log it. But it names the *task*
in nearly every line about its work (`slot launch_slot_: id  0 | task 12 | processing task`), and we know which requests
it is working for. So a task that is new belongs to the request that came to the engine and has no task yet; from then
on each of its lines has that request's id, also those that come after the answer. If two requests came at once, or a
line names no task, it may be any of theirs: then all ids stand there (`request_ids`), because a guess would be a lie.

What is no request's (a warm-up, loading) has none. The bytes as they came are in the model's log (logbook.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

import msgspec

from bioproxy.engines.output import readable
from bioproxy.events import EngineChanged, ModelChanged
from bioproxy.log import json_line

TASK = re.compile(rb"\| task (\d{1,18}) \|")
LEVEL = re.compile(rb"[0-9.]+ ([DIWE]) ")  # how llama-server's lines begin
LEVELS = {b"D": "debug", b"W": "warning", b"E": "error"}
LONGEST = 64 << 10  # bytes of a line that does not end
LATE = 2.0  # seconds that lines may come after the answer
JUST_ENDED = 0.1  # the same for a task's first line: a small request is over before the output is read


class Work(msgspec.Struct):
    """A request that a model's engine works for, or has just worked for."""

    tasks: set[int]
    ended: float | None = None


class EngineLines:
    """`holders` names the requests that the engine of a model has now."""

    def __init__(self, holders: Callable[[str], Iterable[str]], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.holders = holders
        self.clock = clock
        self.open: dict[str, bytes] = {}  # by model: the line that has not ended yet
        self.works: dict[str, dict[str, Work]] = {}  # by model and request

    def __call__(self, model: str, data: bytes) -> bytes:
        """The lines that `data` completes."""
        *lines, rest = (self.open.pop(model, b"") + data).split(b"\n")
        if len(rest) > LONGEST:
            lines, rest = [*lines, rest], b""
        if rest:
            self.open[model] = rest
        self.look(model)
        return b"".join(self.line(model, line) for line in lines if line.strip())

    def started(self, event: ModelChanged) -> None:
        """Another process of a model counts its tasks from the beginning."""
        if event.new == "starting":
            self.works.pop(event.model, None)

    def lost(self, event: EngineChanged) -> None:
        """The same for the only engine."""
        if event.state == "absent":
            self.works.clear()

    def look(self, model: str) -> None:
        """See which requests there are."""
        works, now, holders = self.works.setdefault(model, {}), self.clock(), set(self.holders(model))
        for identity in holders - works.keys():
            works[identity] = Work(set())
        for identity, work in tuple(works.items()):
            if identity in holders:
                work.ended = None
            elif work.ended is None:
                work.ended = now
            elif now - work.ended > LATE:
                del works[identity]

    def line(self, model: str, line: bytes) -> bytes:
        ids = self.whose(model, line)
        text = readable(line[line.rstrip(b"\r").rfind(b"\r") + 1 :])  # of a progress line the last state
        one, several = (ids[0], ()) if len(ids) == 1 else ("", tuple(ids))
        level = LEVELS.get(found[1], "info") if (found := LEVEL.match(line)) else "info"
        entry = json_line(
            time.time(), text, level=level, logger="engine", model=model, request_id=one, request_ids=several
        )
        return entry.encode() + b"\n"

    def whose(self, model: str, line: bytes) -> list[str]:
        """The requests that a line may be about."""
        works, now = self.works[model], self.clock()
        working = {identity: work for identity, work in works.items() if work.ended is None}
        found = TASK.search(line)
        if found is None:
            return [*working]
        task = int(found[1])
        if known := [identity for identity, work in works.items() if task in work.tasks]:
            return known
        recent = {name: work for name, work in works.items() if work.ended is None or now - work.ended < JUST_ENDED}
        ids = [name for name, work in recent.items() if not work.tasks] or [*working]
        if len(ids) == 1:
            works[ids[0]].tasks.add(task)
        return ids
