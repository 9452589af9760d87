"""How long still until a model is ready, by what loads and swaps took before."""

from __future__ import annotations

import pytest

from bioproxy.events import SwapEnded
from bioproxy.models.outlook import Busy, until_ready, until_served
from bioproxy.models.waits import Part
from support.swap_world import Asked, World, plain

SWAP = SwapEnded(model="b", displaced=("a",), stop=1.0, save=2.0, start=3.0, restore=0.0, ours=0.0)


def left(world: World, model: str = "b", *, busy: Busy | None = None) -> float | None:
    """Seconds until `model` is ready, if what runs elsewhere is as `busy` says."""
    return until_ready(world.schedule.book, model, world.now, swapped=lambda _: SWAP, busy=lambda _: busy or Busy())


def served(world: World, asked: Asked, *, busy: Busy | None = None) -> float | None:
    """Seconds until a request has its slot; each needs two."""
    found = until_served(
        world.schedule.book, asked.wish.model, world.now, swapped=lambda _: SWAP, busy=lambda _: busy or Busy(),
        cost=lambda _: 2.0,
    )  # fmt: skip
    return found.get(asked.wish.number)


def swapped(**settings: float) -> World:
    """A world in which both models were loaded before, b last; its loads take 3 s, its stops 1 s."""
    world = World(plain("a", "b", **settings))
    world.ask("b", at=0.0)
    world.ask("a", at=20.0)
    return world.run()


def test_a_model_that_was_never_loaded_tells_nothing() -> None:
    """A guess would be worse than none."""
    world = World(plain("a", "b"))
    world.ask("b")
    assert left(world) is None
    assert left(world, "unknown") is None


def test_a_load_takes_what_the_last_one_took() -> None:
    """What is over of it is taken off; one that takes longer goes on for a while."""
    world = swapped()
    world.ask("b")
    assert left(world) == 3.0 + 3.0  # a's stop and save, then b's load
    world.run(until=world.now + 1.0)
    assert world.schedule.waits_for("b") == "start"
    assert left(world) == 3.0
    world.run(until=world.now + 2.0)
    assert left(world) == 1.0
    world.now += 5.0
    assert left(world) == pytest.approx(7.0 - 0.75 * 3.0)


def test_what_runs_on_others_comes_first() -> None:
    """All of it, or what runs once this one has waited for `max_wait`, for then nobody goes before it."""
    world = swapped()
    world.ask("a", seconds=100.0)
    world.ask("b")
    assert world.schedule.waits_for("b") == "in_use"
    older, now = world.now - 1.0, world.now
    assert left(world, busy=Busy(5.0, ((older, 50.0),))) == 55.0 + 3.0 + 3.0
    assert left(world, busy=Busy(5.0, ((now, 7.0),))) == 12.0 + 3.0 + 3.0
    assert left(world, busy=Busy(5.0, ((now, 300.0),))) == 30.0 + 3.0 + 3.0


def test_who_waits_for_the_same_model_goes_in_order() -> None:
    """One after the other, once the model is there."""
    world = swapped()
    asked = [world.ask("b") for _ in range(3)]
    assert [served(world, one) for one in asked] == [6.0, 8.0, 10.0]


def test_models_that_take_turns_are_played_through() -> None:
    """Who has waited for `max_wait` goes before newer ones of the model that is there, and each change is a swap."""
    world = swapped()
    world.ask("a", seconds=100.0)
    first = world.ask("b")
    world.run(until=world.now + 1.0)
    other = world.ask("a", patience=500.0)  # it waits in a's gate, as `busy` says below
    rest = [world.ask("b") for _ in range(20)]
    busy = Busy(5.0, ((other.at, 4.0),))
    assert served(world, first, busy=busy) == 9.0 + 3.0 + 3.0
    found = [served(world, one, busy=busy) for one in rest]
    assert found[:3] == [17.0, 19.0, 21.0]
    assert found == sorted(found, key=lambda one: one or 0.0)


@pytest.mark.parametrize(("settings", "part"), [({"min_resident": 10.0}, "min_resident"), ({"linger": 8.0}, "linger")])
def test_a_model_that_is_held_is_waited_for(settings: dict[str, float], part: Part) -> None:
    """As long as the clock says."""
    world = swapped(**settings)
    world.run(until=60.0)
    world.do(world.schedule.unload("a", world.now))
    world.run(until=70.0)
    world.ask("a", tool_calls=True)
    world.run(until=75.0)
    world.ask("b")
    assert world.schedule.waits_for("b") == part
    until = 83.0 if part == "min_resident" else 82.0
    assert left(world) == pytest.approx(until - 75.0 + 3.0 + 3.0)


def test_a_model_that_is_ready_is_not_waited_for() -> None:
    """Nothing is known of who stands behind a request that is overdue."""
    assert left(swapped(), "a") is None
