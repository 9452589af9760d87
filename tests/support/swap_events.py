"""What the fake engines of a test did, read from the file that they all write (fakes/swap_journal.py)."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One line: what happened to which process when. The other members belong to some events only."""

    t: float
    pid: int
    model: str
    event: str
    others: tuple[str, ...] = ()
    port: int = 0
    number: int = 0
    path: str = ""
    method: str = ""
    how: str = ""
    why: str = ""
    code: int = 0
    group: int = 0


class EventLog:
    """The file, read anew each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Told]:
        """Every event so far, in the order in which they were written."""
        if not self.path.exists():
            return []
        lines = self.path.read_text().splitlines()
        return [msgspec.convert(json.loads(line), Told) for line in lines]

    def of(self, event: str, model: str = "") -> list[Told]:
        """The events of one kind, of one model or of all."""
        return [told for told in self.all() if told.event == event and model in ("", told.model)]

    def starts(self) -> list[str]:
        """The models in the order in which their processes started."""
        return [told.model for told in self.of("start")]

    def served(self) -> list[str]:
        """The models in the order in which their requests began."""
        return [told.model for told in self.of("begin")]

    def together(self) -> list[set[str]]:
        """Sets of models of which a process lived at once; a model that lived beside itself is named twice: `a a`."""
        found = []
        for told in self.of("beside"):
            names = {told.model, *told.others}
            found.append(names | {f"{told.model} {told.model}"} if told.model in told.others else names)
        return found

    def overlap(self, one: str, other: str) -> bool:
        """Whether processes of both models ever lived at once."""
        return any({one, other} <= names for names in self.together())

    def port(self, model: str) -> int:
        """Where the newest process of `model` listens."""
        return self.of("listening", model)[-1].port

    def unended(self) -> set[tuple[int, int]]:
        """Requests that began in a process and did not end there: pid and number."""
        began = {(told.pid, told.number) for told in self.of("begin")}
        return began - {(told.pid, told.number) for told in self.of("end")}
