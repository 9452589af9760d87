"""What those who wait for a model wait for: each moment has one name, and the parts add up to the wait.

That they add up is checked for every request of every test on a simulated machine (swap_world.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bioproxy.models.book import ModelSettings
from bioproxy.models.waits import Waits, between
from support.swap_world import LOAD, STOP, World


def models(names: str, **settings: Any) -> list[ModelSettings]:
    """Models of which one runs at a time; nothing holds a swap back unless it is said."""
    return [ModelSettings(id=name, **{"min_resident": 0.0, **settings}) for name in names.split()]


def test_a_first_start() -> None:
    """All of it is the start, and for who joins only the rest of it."""
    world = World(models("a"))
    first, second = world.ask("a"), world.ask("a", at=1.0)
    world.run()
    assert (first.parts, second.parts) == ({"start": LOAD}, {"start": LOAD - 1.0})


def test_a_swap() -> None:
    """The other model goes, then this one comes."""
    world = World(models("a b"))
    world.ask("a")
    asked = world.ask("b", at=20.0)
    world.run()
    assert asked.parts == {"stop": STOP, "start": LOAD}


def test_a_model_that_is_in_use() -> None:
    """Its requests end first."""
    world = World(models("a b"))
    world.ask("a", seconds=7.0)
    asked = world.ask("b", at=LOAD + 1.0)
    world.run()
    assert asked.parts == {"in_use": pytest.approx(6.0), "stop": STOP, "start": LOAD}


def test_a_model_in_the_middle_of_tool_calls() -> None:
    """Its next request is certain to come, so it is held for `linger`."""
    world = World(models("a b", linger=5.0))
    world.ask("a", seconds=1.0, tool_calls=True)
    asked = world.ask("b", at=LOAD + 3.0)
    world.run()
    assert asked.parts == {"linger": pytest.approx(3.0), "stop": STOP, "start": LOAD}


def test_a_model_that_was_loaded_a_moment_ago() -> None:
    """It is held for `min_resident`."""
    world = World(models("a b", min_resident=10.0))
    world.ask("a", seconds=1.0)
    asked = world.ask("b", at=LOAD + 4.0)
    world.run()
    assert asked.parts == {"min_resident": pytest.approx(6.0), "stop": STOP, "start": LOAD}


def test_the_second_try_of_a_start() -> None:
    """The pause before it has a name, too, and both starts count as one."""
    outcomes: Iterator[float | str] = iter([LOAD, "no memory", LOAD])
    world = World(models("a b"), load=lambda _model: next(outcomes))
    world.ask("a")
    asked = world.ask("b", at=20.0)
    world.run()
    assert asked.parts == {"stop": STOP, "start": pytest.approx(2 * LOAD), "pause": pytest.approx(2.0)}


def test_how_far_lives_are() -> None:
    """What they report is the part of all who wait for it: their model's start, the stop of those that make room."""
    world = World(models("a b"), load=lambda _model: 8.0, stop=lambda _model: 4.0)
    world.ask("a")
    asked = world.ask("b", at=20.0)
    stages = ((20.0, "a", "save"), (23.0, "a", "stop"), (30.0, "b", "attach"), (31.0, "b", "restore"))
    for at, model, part in stages:
        world.at(at, lambda model=model, part=part: world.schedule.stage(model, part, world.now))  # type: ignore[misc]
    late = world.ask("b", at=30.5)
    world.run()
    assert asked.parts == {"save": 3.0, "stop": 1.0, "start": 6.0, "attach": 1.0, "restore": 1.0}
    assert late.parts == {"attach": 0.5, "restore": 1.0}


def test_an_unload_while_somebody_waits_for_the_stop() -> None:
    """Who comes while its own process goes waits for that, then for the next one."""
    world = World(models("a"), stop=lambda _model: 4.0)
    world.ask("a")
    world.at(10.0, lambda: world.do(world.schedule.unload("a", world.now)))
    asked = world.ask("a", at=11.0)
    world.run()
    assert asked.parts == {"stop": 3.0, "start": LOAD}


def test_looks_at_a_wait() -> None:
    """Seconds only grow, whatever was waited for in between."""
    waits = Waits()
    waits.turn("stop", 10.0)
    before = waits.until(12.0)
    waits.turn("stop", 13.0)
    waits.turn("start", 14.0)
    assert between(before, waits.until(20.0)) == {"stop": 2.0, "start": 6.0}
    assert between(before, before) == {}
