"""An operator's pause: how long it is, what is said of it, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from bioproxy import aio
from bioproxy.admin.pause_api import seconds_of
from bioproxy.errors import BioproxyError, RequestError
from bioproxy.events import Bus, PauseChanged
from bioproxy.models import pause
from bioproxy.models.fleet import Fleet
from bioproxy.models.pause import Pause

HOUR = 3600.0


class Resting:
    """A fleet that only rests and goes on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.why: Callable[[], BioproxyError]
        self.went_on = asyncio.Event()

    def hold(self, why: Callable[[], BioproxyError]) -> None:
        self.calls.append(why().message)
        self.why = why

    async def rest(self) -> None:
        """Everything has stopped."""

    def accept(self) -> None:
        self.calls.append("on")
        assert self.why().message, "who comes now is refused without a word"

    async def go_on(self) -> None:
        self.went_on.set()

    def unready(self) -> str:
        return "the engine is absent"


class World:
    """A pause, its fleet, its clock, and what was published."""

    def __init__(self) -> None:
        self.fleet, self.now, self.bus = Resting(), 1e9, Bus()
        self.told: list[PauseChanged] = []
        self.bus.subscribe(PauseChanged, self.told.append)
        self.pause = Pause(cast("Fleet", self.fleet), bus=self.bus, wall=lambda: self.now)


async def test_for_a_time() -> None:
    """Clients hear how long still, in words and as Retry-After; the last of several pauses counts."""
    world = World()
    await world.pause.begin(2 * HOUR)
    world.now += 90 * 60
    refusal = world.pause.refusal()
    assert refusal.message == "bioproxy is paused for another 30m; `bioproxy resume` ends that"
    assert (refusal.status, refusal.retry_after) == (503, 1800)
    assert world.pause.unready() == refusal.message
    await world.pause.begin(60.0)
    assert world.pause.refusal().retry_after == 60
    assert world.pause.status is not None
    assert world.pause.status.since == 1e9


async def test_until_further_notice() -> None:
    """Nobody knows when it ends: clients ask again after a minute."""
    world = World()
    await world.pause.begin(None)
    refusal = world.pause.refusal()
    assert (refusal.message, refusal.retry_after) == ("bioproxy is paused; `bioproxy resume` ends that", 60)


async def test_the_end() -> None:
    """The fleet goes on once, and what is not ready says so itself; an end of no pause does nothing."""
    world = World()
    await world.pause.begin(None)
    await world.pause.end()
    await world.pause.end()
    assert world.fleet.calls == ["bioproxy is paused; `bioproxy resume` ends that", "on"]
    assert [(one.paused, one.until) for one in world.told] == [(True, None), (False, None)]
    assert world.pause.unready() == "the engine is absent"


async def test_its_time_is_that_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over though no timer ran while the machine slept."""
    monkeypatch.setattr(pause, "LOOK", 0.005)
    world = World()
    service = aio.spawn(world.pause.run(), name="pause")
    await world.pause.begin(HOUR)
    world.now += HOUR
    await world.fleet.went_on.wait()
    assert world.pause.status is None
    await aio.finish([service])


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("1h30m", 5400.0), ("90", 90.0)])
def test_lengths(text: str, seconds: float | None) -> None:
    """As people write them; none is until further notice."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "11y", "99999d"])
def test_what_is_no_length(text: str) -> None:
    """A sentence that says what would be one."""
    with pytest.raises(RequestError, match=f"^for: expected .*got '{text}'"):
        seconds_of(text)
