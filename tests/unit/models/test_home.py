"""Back to the default model after some idleness, and models that are pinned."""

from __future__ import annotations

import math

import pytest

from bioproxy.config.dialect.schema import Group
from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.models.book import ModelSettings
from bioproxy.models.groups import Groups
from bioproxy.models.matrix import Matrix
from bioproxy.models.state import State
from support.swap_world import World, plain

AFTER = 600.0


def world(*others: ModelSettings, home: float = AFTER, rules: Groups | None = None) -> World:
    """One with the default model `a`, and others."""
    return World([*plain("a", home=home), *(others or plain("b"))], rules)


def test_the_default_model_comes_back() -> None:
    """After so much idleness since the end of the last request to another one."""
    one = world()
    one.ask("a", at=0.0)
    asked = one.ask("b", at=10.0, seconds=100.0)
    one.run(until=AFTER + 110.0)
    assert one.running() == ["b"]
    one.run()
    assert one.running() == ["a"]
    assert asked.over is not None
    assert one.swaps[-1] == (asked.over + AFTER, "b", "a")
    assert math.isinf(one.schedule.wake)


def test_it_need_not_have_been_there_before() -> None:
    """A model that stands for others that were used is loaded, and not again after its own time to live."""
    one = World([*plain("a", home=AFTER, ttl=5.0), *plain("b", ttl=3.0)])
    one.ask("b", at=0.0)
    one.run()
    assert one.starts == {"a": 1, "b": 1}
    assert one.running() == []


def test_idleness_is_that_of_all_models() -> None:
    """As long as any other is used, nobody's model is stopped."""
    one = world(*plain("b", "c"), rules=Groups({"1": Group(members=("a", "b", "c"), swap=False)}))
    for turn in range(5):
        one.ask("b", at=turn * (AFTER - 10.0))
    one.run()
    assert [asked.waited for asked in one.asked[1:]] == [0.0] * 4
    assert sorted(one.running()) == ["a", "b"]


def test_nothing_was_used() -> None:
    """A program that was only started loads nothing: `preload` is for that."""
    one = world().run()
    assert one.running() == []
    one.do(one.schedule.tick(AFTER * 2))
    assert one.running() == []


def test_a_default_model_that_was_unloaded_stays_away() -> None:
    """Until another one was used after that."""
    one = world()
    one.ask("a", at=0.0)
    one.ask("b", at=10.0)
    one.run(until=AFTER)
    one.do(one.schedule.unload("b", one.now))
    one.do(one.schedule.unload("a", one.now))
    one.run()
    assert one.running() == []
    one.ask("b")
    one.run()
    assert one.running() == ["a"]


def test_a_default_model_that_does_not_start_is_tried_once() -> None:
    """Not every minute, while nobody asks for it."""
    one = World([*plain("a", home=AFTER), *plain("b")], load=lambda model: "broken" if model == "a" else 1.0)
    one.ask("b", at=0.0)
    one.run()
    assert one.starts["a"] <= 2  # right after another's stop it has a second try
    assert one.schedule.state("a") is State.FAILED


def test_a_request_is_served_first() -> None:
    """A client that comes while the default model is loaded waits for that, and then has its own."""
    one = world()
    one.ask("b", at=0.0)
    late = one.ask("b", at=AFTER + 6.0)
    one.run()
    assert late.served is not None
    assert one.running() == ["a"]
    assert one.starts == {"a": 2, "b": 2}


def test_a_reload_changes_which_it_is() -> None:
    """The models that are configured now count."""
    one = world(*plain("b", "c"))
    one.ask("b", at=0.0)
    one.run(until=100.0)
    one.do(one.schedule.configure([*plain("a", "b"), *plain("c", home=50.0)], rules=one.rules, now=one.now))
    one.run()
    assert one.running() == ["c"]
    one.do(one.schedule.configure(plain("a", "b"), rules=one.rules, now=one.now))
    one.ask("b")
    one.run()
    assert one.running() == ["b"]


def test_it_does_not_push_out_a_pinned_model() -> None:
    """Nobody waits for it."""
    one = world(*plain("b", pin=True))
    one.ask("b", at=0.0)
    one.run()
    assert one.running() == ["b"]


@pytest.mark.parametrize("costs", [{}, {"a": 1000}])
def test_a_swap_with_a_choice_spares_a_pinned_model(costs: dict[str, int]) -> None:
    """Whatever the others cost."""
    settings = MatrixSettings(sets={"x": "a & c", "y": "b & c"}, evict_costs=costs)
    seconds = {"a": 10_000.0, "b": 0.0}
    assert Matrix(settings, "abc").evict("c", ["a", "b"], seconds) == {"b"}
    assert Matrix(settings, "abc", pinned="b").evict("c", ["a", "b"], seconds) == {"a"}
    assert Matrix(settings, "abc", pinned="ab").evict("c", ["a", "b"], seconds) == {"b"}


def test_a_swap_without_a_choice_stops_it_all_the_same() -> None:
    """A request is worth more than a model that nobody uses."""
    one = World([*plain("a", pin=True), *plain("b")])
    one.ask("a", at=0.0)
    asked = one.ask("b", at=10.0)
    one.run()
    assert asked.served is not None
