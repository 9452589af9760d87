"""What belonged to models that a reload changed or took out, for as long as their processes may run.

A process that finishes what it serves keeps its own unit and station, though the model has others by then. A model that
is put back as it was, before its process had to go, gets them back: the schedule lets that process run on, and requests
must go where it is. What no process uses any more is let go of at the end of each reload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable
from typing import NamedTuple

from bioproxy.logbook import Logbook
from bioproxy.models.life import Life
from bioproxy.models.plan import ModelPlan
from bioproxy.models.unit import Unit
from bioproxy.station import Station

AT_ONCE = 50  # stations that are closed together: the streams of others go on between them


class Parts(NamedTuple):
    """One model that was taken out."""

    plan: ModelPlan
    station: Station
    unit: Unit


class Retired:
    """All of them, by station and, of models that are no more, by name."""

    def __init__(self, logbook: Logbook) -> None:
        self.logbook = logbook
        self.stations: list[Station] = []
        self.removed: dict[str, Parts] = {}

    def replace(self, station: Station) -> None:
        """A model has another station from now on."""
        self.stations.append(station)

    def remove(self, parts: Parts) -> None:
        """A model was taken out. Its log stays as long as its process may write to it."""
        self.stations.append(parts.station)
        self.removed[parts.plan.id] = parts

    def take_back(self, one: ModelPlan) -> Parts | None:
        """The parts of a model that was taken out and is back as it was; None if there are none."""
        parts = self.removed.pop(one.id, None)
        if parts is None or parts.plan.settings.launch != one.settings.launch:
            return None
        self.stations.remove(parts.station)
        return parts

    async def bury(self, lives: Iterable[Life], *, deadline: float, present: Container[str]) -> None:
        """Let go of what none of `lives` uses any more; `present` are the models that there are."""
        used = [life.unit.station for life in lives]
        over = [station for station in self.stations if station not in used]
        self.stations = [station for station in self.stations if station in used]
        self.removed = {name: parts for name, parts in self.removed.items() if parts.station in used}
        for station in over:
            if station.model not in present and station.model not in self.removed:
                self.logbook.forget(station.model)
        for place in range(0, len(over), AT_ONCE):
            some = over[place : place + AT_ONCE]
            await asyncio.gather(*(station.keeper.close(deadline=deadline) for station in some))
