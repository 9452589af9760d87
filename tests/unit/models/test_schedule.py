"""The schedule: who is served, who waits, what is started and stopped, and in which order."""

from __future__ import annotations

import pytest

from bioproxy.config.dialect.schema import Group
from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.models.effects import Serve, Start, Stop
from bioproxy.models.groups import Groups
from bioproxy.models.matrix import Matrix
from bioproxy.models.state import State
from bioproxy.models.wish import Place
from bioproxy.station import Price
from support.swap_world import LOAD, STOP, World, acts, plain

MS = 0.001


def free(*members: str) -> Groups:
    """Models that run side by side."""
    return Groups({"g": Group(members=members, swap=False)})


def test_a_request_starts_its_model_and_is_served_when_it_is_ready() -> None:
    """Start, wait, serve."""
    world = World(["a"])
    asked = world.ask("a")
    assert acts(world.log) == ["start a"]
    world.run()
    assert acts(world.log) == ["start a", "serve a"]
    assert asked.waited == pytest.approx(LOAD)


def test_a_model_that_is_ready_serves_at_once() -> None:
    """Nothing is decided: the request goes in the same call."""
    world = World(["a"])
    world.ask("a")
    world.run()
    asked = world.ask("a")
    assert asked.waited == 0.0


def test_requests_join_a_start() -> None:
    """Whoever comes while the model starts waits for the same start."""
    world = World(["a"])
    world.ask("a"), world.ask("a", at=1.0)
    assert acts(world.run().log) == ["start a", "serve a", "serve a"]


def test_a_swap_stops_first_and_starts_then() -> None:
    """The next engine starts when the one before it is gone, not earlier."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0), world.ask("b", at=10.0)
    world.run()
    assert acts(world.log) == ["start a", "serve a", "stop a swap", "start b", "serve b"]
    assert world.asked[1].waited == pytest.approx(STOP + LOAD)


def test_a_stop_names_who_comes_and_its_grace() -> None:
    """The supervisor knows that a user waits, and how long the process may take."""
    world = World(plain("a", "b", swap_grace=7.0))
    world.ask("a", at=0.0), world.ask("b", at=10.0)
    (stop,) = [effect for effect in world.run().log if isinstance(effect, Stop)]
    assert (stop.displaced_by, stop.grace, stop.life) == ("b", 7.0, 1)


def test_requests_in_flight_are_never_interrupted_by_a_swap() -> None:
    """The other model waits until the last answer has ended, even when it is overdue."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=100.0), world.ask("b", at=10.0)
    world.run()
    assert world.asked[1].served == pytest.approx(LOAD + 100.0 + STOP + LOAD)


def test_requests_for_two_models_are_collated() -> None:
    """A B A B A B with one place is A A A B B B: one swap, not five."""
    world = World(plain("a", "b"))
    for at, model in enumerate("ababab"):
        world.ask(model, at=at * MS)
    served = [effect.wish.model for effect in world.run().log if isinstance(effect, Serve)]
    assert served == list("aaabbb")
    assert len(world.swaps) == 1


def test_models_that_may_run_together_start_in_parallel() -> None:
    """A group without swap, and a set of a matrix."""
    matrix = Matrix(MatrixSettings(sets={"s": "a & b"}), "ab")
    for rules in (free("a", "b"), matrix):
        world = World(plain("a", "b"), rules)
        world.ask("a"), world.ask("b")
        assert acts(world.log) == ["start a", "start b"]


def test_a_request_for_a_running_model_stops_nobody() -> None:
    """An exclusive model and a loose one came to run side by side: neither's next request stops the other."""
    world = World(plain("x", "n"), Groups({"X": Group(members=("x",)), "N": Group(members=("n",), exclusive=False)}))
    world.ask("x", at=0.0), world.ask("n", at=10.0), world.ask("x", at=20.0)
    world.run()
    assert world.running() == ["x", "n"]
    assert not world.swaps


def test_who_is_being_displaced_does_not_come_back_under_it() -> None:
    """A loose model that an exclusive one waits to replace starts again only behind it."""
    groups = Groups({"X": Group(members=("x", "y")), "N": Group(members=("n",), exclusive=False)})
    world = World(plain("x", "y", "n"), groups, stop=lambda model: 5.0 if model == "y" else 1.0)
    world.ask("y", at=0.0), world.ask("n", at=0.0), world.ask("x", at=10.0), world.ask("n", at=12.0)
    world.run()
    starts = [effect.model for effect in world.log if isinstance(effect, Start)]
    assert starts == ["y", "n", "x", "n"]
    assert world.settled


def test_higher_priority_swaps_first() -> None:
    """Among those that wait, the model with the higher priority comes first, though asked for later."""
    models = [*plain("a", "low"), *plain("high", priority=5)]
    world = World(models)
    world.ask("a", at=0.0, seconds=10.0), world.ask("low", at=4.0), world.ask("high", at=5.0)
    world.run()
    assert [come for _when, _gone, come in world.swaps] == ["high", "low"]


def test_a_client_that_leaves_starts_nothing() -> None:
    """Its swap was not begun yet: the model that runs stays."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=10.0), world.ask("b", at=4.0, patience=1.0)
    world.run()
    assert acts(world.log) == ["start a", "serve a"]


def test_a_load_that_nobody_waits_for_goes_on() -> None:
    """Its client left, nobody else wants the place: it becomes ready all the same."""
    world = World(["a"])
    world.ask("a", patience=1.0)
    assert world.run().running() == ["a"]


def test_a_load_that_nobody_waits_for_gives_way() -> None:
    """Its client left, and somebody waits for another model: it is stopped in the middle of its start."""
    world = World(["a", "b"], load=lambda model: 100.0 if model == "a" else LOAD)
    world.ask("a", patience=1.0), world.ask("b", at=2.0)
    world.run()
    assert acts(world.log) == ["start a", "stop a swap", "start b", "serve b"]
    assert world.asked[1].waited == pytest.approx(STOP + LOAD)


def test_a_load_that_somebody_waits_for_serves_before_it_goes() -> None:
    """Two models at once: the first is loaded, serves, and then makes room."""
    world = World(plain("a", "b"))
    world.ask("a"), world.ask("b")
    assert acts(world.run().log) == ["start a", "serve a", "stop a swap", "start b", "serve b"]


def test_a_model_that_stops_is_started_again_after_it_ended() -> None:
    """A request in the middle of an unload waits for the end of the process."""
    world = World(plain("a"))
    world.ask("a", at=0.0)
    world.at(10.0, lambda: world.do(world.schedule.unload("a", 10.0)))
    asked = world.ask("a", at=10.5)
    world.run()
    assert acts(world.log)[2:] == ["stop a unload", "start a", "serve a"]
    assert asked.served == pytest.approx(10.0 + STOP + LOAD)


def test_an_explicit_limit_answers_429() -> None:
    """Waiting and running count; the next is told to come again, with llama-swap's words."""
    world = World(plain("a", limit=2))
    world.ask("a"), world.ask("a")
    third = world.ask("a")
    assert third.failed is not None
    assert (third.failed.why, third.failed.reason, third.failed.retry_after) == ("limit", "Too many requests", 1)
    world.run()
    assert world.ask("a").served is not None


def test_without_a_limit_nobody_is_turned_away() -> None:
    """A hundred requests for one model wait and are all served."""
    world = World(["a"])
    asked = [world.ask("a") for _ in range(100)]
    world.run()
    assert all(one.served is not None for one in asked)


def test_the_queue_has_a_limit_for_those_who_have_to_wait() -> None:
    """A full queue turns away who would wait, and nobody whose model is ready."""
    world = World(plain("a", "b"), queue_limit=1)
    world.ask("a", at=0.0, seconds=100.0)
    world.run(until=10.0)
    waits, refused, ready = world.ask("b"), world.ask("b"), world.ask("a")
    assert waits.wish.place is Place.WAITING
    assert refused.failed is not None
    assert refused.failed.why == "full"
    assert ready.served is not None


def test_unknown_models() -> None:
    """A name that nobody configured, in llama-swap's words."""
    failed = World(["a"]).ask("z").failed
    assert failed is not None
    assert (failed.why, failed.reason) == ("unknown", "no local server found for requested model")


def test_a_load_is_done_when_the_model_is_ready() -> None:
    """Nothing runs for it afterwards, and a model that is ready is loaded at once."""
    world = World(["a"])
    first = world.ask("a", load=True)
    world.run()
    second = world.ask("a", load=True)
    assert acts(world.log) == ["start a", "loaded a", "loaded a"]
    assert first.waited == pytest.approx(LOAD)
    assert second.waited == 0.0


def test_a_start_names_who_waits() -> None:
    """What the first of them needs is restored before the model is ready."""
    world = World(["a"])
    first, second = world.ask("a"), world.ask("a")
    assert world.schedule.waiting_for("a") == (first.wish, second.wish)
    assert world.schedule.waiting_for("z") == ()


def test_the_position_in_the_queue() -> None:
    """One is next, by arrival; who does not wait has none."""
    world = World(plain("a", "b", "c"))
    served = world.ask("a", at=0.0, seconds=100.0)
    world.run(until=10.0)
    waiting = [world.ask("b"), world.ask("c"), world.ask("b")]
    assert [world.schedule.position(one.wish) for one in [*waiting, served]] == [1, 2, 3, 0]


def test_late_and_doubled_reports_change_nothing() -> None:
    """A report of an earlier life, a second "ready", an end of what has ended."""
    world = World(plain("a"))
    world.ask("a", at=0.0)
    world.run()
    schedule = world.schedule
    assert schedule.ready("a", 1, world.now) == []
    assert schedule.ready("a", 0, world.now) == []
    assert schedule.ended("a", 0, world.now) == []
    assert schedule.ended("z", 1, world.now) == []
    assert schedule.state("a") is State.READY
    assert schedule.end(world.asked[0].wish, world.now) == []


def test_a_stop_wins_over_a_start_that_is_just_ready() -> None:
    """The engine got healthy while the decision to stop it was on its way."""
    world = World(["a"])
    world.ask("a")
    world.do(world.schedule.unload("a", 0.0))
    world.do(world.schedule.ready("a", 1, 0.5))
    assert world.schedule.state("a") is State.STOPPING


def test_statistics_tell_everything() -> None:
    """One value for metrics, status and tests."""
    world = World(plain("a", "b", ttl=60.0))
    world.ask("a", at=0.0, seconds=2.0), world.ask("b", at=4.0)
    world.run(until=4.5)
    found = world.schedule.statistics()
    first, second = found.models
    assert (found.waiting, found.running, found.closed) == (1, 1, ())
    assert (first.model, first.state, first.running) == ("a", State.READY, 1)
    assert first.load_seconds == pytest.approx(LOAD)
    assert (second.state, second.waiting, second.starts) == (State.STOPPED, 1, 0)
    assert first.unload_at == 0.0


def test_what_is_cheapest_to_bring_back_goes() -> None:
    """Of two idle models the one with less to restore makes room, where the rule has a choice."""
    rules = Matrix(MatrixSettings(sets={"two": "(a & b) | (a & c) | (b & c)"}), "abc")
    world = World(plain("a", "b", "c"), rules)
    world.ask("a", at=0.0), world.ask("b", at=0.0)
    world.run()
    world.schedule.note_price("a", Price(40_000))
    world.schedule.note_price("b", Price(40_000, restore=0.5))
    world.ask("c", at=world.now)
    world.run()
    assert [gone for _when, gone, _come in world.swaps] == ["b"]


def test_an_idle_model_goes_before_one_in_use() -> None:
    """Nobody waits for a busy model to end where an idle one can go."""
    rules = Matrix(MatrixSettings(sets={"two": "(a & b) | (a & c) | (b & c)"}), "abc")
    world = World(plain("a", "b", "c"), rules, load=lambda model: 20.0 if model == "b" else 1.0)
    world.ask("a", at=0.0, seconds=1000.0), world.ask("b", at=0.0)
    world.run(until=30.0)
    asked = world.ask("c")
    world.run(until=60.0)
    assert asked.waited == pytest.approx(STOP + 1.0)
