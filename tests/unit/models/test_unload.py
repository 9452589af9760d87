"""When models stop for another reason than a swap: time to live, unload, shutdown."""

from __future__ import annotations

import pytest

from bioproxy.config.dialect.schema import Group
from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.models.effects import Stop
from bioproxy.models.groups import Groups
from bioproxy.models.matrix import Matrix
from bioproxy.models.state import State
from support.swap_world import LOAD, STOP, World, acts, plain


def free(*members: str) -> Groups:
    """Models that run side by side."""
    return Groups({"g": Group(members=members, swap=False)})


def test_time_to_live() -> None:
    """Counted from the end of the last request, and from the load where none came."""
    world = World(plain("a", ttl=60.0))
    world.ask("a", seconds=10.0)
    world.run()
    (stop,) = [effect for effect in world.log if isinstance(effect, Stop)]
    assert stop.reason == "ttl"
    assert world.now == pytest.approx(LOAD + 10.0 + 60.0 + STOP)


def test_time_to_live_of_a_model_that_nobody_used() -> None:
    """A load whose client left lives its time from when it was ready on, not from the beginning of the world."""
    world = World(plain("a", ttl=60.0))
    world.ask("a", at=1000.0, patience=1.0)
    world.run()
    assert world.now == pytest.approx(1000.0 + LOAD + 60.0 + STOP)


def test_each_request_begins_the_time_to_live_anew() -> None:
    """Also one that the schedule serves without looking at anybody."""
    world = World(plain("a", ttl=60.0))
    world.ask("a", at=0.0), world.ask("a", at=50.0), world.ask("a", at=100.0)
    world.run()
    assert world.now == pytest.approx(101.0 + 60.0 + STOP)
    assert world.starts["a"] == 1


def test_unload_lets_requests_finish_within_their_grace() -> None:
    """A short one ends first; who waits for the model is told at once."""
    world = World(plain("a", unload_timeout=10.0))
    world.ask("a", at=0.0, seconds=5.0)
    world.run(until=4.0)
    world.do(world.schedule.unload("a", world.now))
    assert acts(world.log) == ["start a", "serve a"]
    world.run()
    assert acts(world.log)[2:] == ["stop a unload"]
    assert world.asked[0].over == pytest.approx(LOAD + 5.0)


def test_unload_cuts_requests_after_their_grace() -> None:
    """A long one is cut when the grace is over."""
    world = World(plain("a", unload_timeout=10.0))
    world.ask("a", at=0.0, seconds=1000.0)
    world.run(until=4.0)
    world.do(world.schedule.unload("a", world.now))
    world.run(until=14.5)
    assert world.schedule.state("a") is State.STOPPING
    world.run(until=20.0)
    assert world.schedule.state("a") is State.STOPPED


def test_unload_fails_who_waits_for_it() -> None:
    """In llama-swap's words, for groups and for a matrix; the start is stopped."""
    for rules, message in (
        (None, "group: model unloaded"),
        (Matrix(MatrixSettings(sets={"s": "a"}), "a"), "matrix: model unloaded"),
    ):
        world = World(["a"], rules)
        asked = world.ask("a")
        world.do(world.schedule.unload("a", 0.0))
        assert asked.failed is not None
        assert (asked.failed.why, asked.failed.reason) == ("unloaded", message)
        assert acts(world.log)[-1] == "stop a unload"


def test_unload_blocks_nothing_else() -> None:
    """While one model has its grace and then takes its time to stop, another one starts and serves."""
    world = World(plain("a", "b"), free("a", "b"), stop=lambda _model: 50.0)
    world.ask("a", at=0.0, seconds=1000.0)
    world.run(until=5.0)
    world.do(world.schedule.unload("a", world.now))
    asked = world.ask("b")
    world.run(until=20.0)
    assert asked.waited == pytest.approx(LOAD)


def test_unloading_what_does_not_run_changes_nothing() -> None:
    """Stopped, stopping or unknown: a successful no-op."""
    world = World(plain("a"))
    world.do(world.schedule.unload("a", 0.0))
    world.do(world.schedule.unload("z", 0.0))
    assert not world.log


def test_shutdown() -> None:
    """Who waits is told, every process is stopped, newcomers fail, late reports are taken."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=100.0)
    world.run(until=10.0)
    waits = world.ask("b")
    world.do(world.schedule.close(world.now))
    assert acts(world.log)[-2:] == ["stop a shutdown", "fail b shutdown"]
    assert waits.failed is not None
    assert waits.failed.reason == "[b] shutdown"
    late = world.ask("a")
    assert late.failed is not None
    world.run()
    assert world.schedule.state("a") is State.SHUTDOWN
    assert world.schedule.unload("a", world.now) == []
