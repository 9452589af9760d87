"""No starvation, no ping-pong: how long who waits for whom."""

from __future__ import annotations

import itertools

import pytest

from bioproxy.config.dialect.schema import Group
from bioproxy.models.book import ModelSettings
from bioproxy.models.effects import Recall, Serve
from bioproxy.models.groups import Groups
from support.config_files import config
from support.swap_world import LOAD, STOP, World

MAX_WAIT = 30.0
HOUR = 3600.0


def plain(*names: str, min_resident: float | None = 0.0, linger: float = 5.0, priority: int = 0) -> list[ModelSettings]:
    return [ModelSettings(id=name, min_resident=min_resident, linger=linger, priority=priority) for name in names]


def keep_busy(world: World, model: str, *, every: float, seconds: float, until: float) -> None:
    """Requests that overlap, so that the model is never idle."""
    at = 0.0
    while at < until:
        world.ask(model, at=at, seconds=seconds)
        at += every


def in_turns(world: World, model: str, *, think: float, seconds: float, until: float, tool_calls: bool = True) -> None:
    """A client that sends its next request `think` seconds after each answer."""

    def again() -> None:
        if world.now < until:
            world.ask(model, at=world.now + think, seconds=seconds, tool_calls=tool_calls, then=again)

    again()


def test_a_busy_model_starves_nobody() -> None:
    """After max_wait newcomers of the busy model wait, too; what runs then ends, and the other one comes."""
    world = World(plain("a", "b"))
    keep_busy(world, "a", every=1.0, seconds=4.0, until=200.0)
    asked = world.ask("b", at=20.0)
    world.run(until=100.0)
    assert MAX_WAIT < asked.waited <= MAX_WAIT + 4.0 + STOP + LOAD


def test_until_then_the_busy_model_serves_its_newcomers_at_once() -> None:
    """Up to max_wait a swap that waits costs the busy model's clients nothing."""
    world = World(plain("a", "b"))
    keep_busy(world, "a", every=1.0, seconds=4.0, until=40.0)
    world.ask("b", at=10.0)
    world.run()
    early = [one for one in world.asked if one.wish.model == "a" and LOAD < one.at < 10.0 + MAX_WAIT]
    assert len(early) > 30
    assert all(one.waited == 0.0 for one in early)


def test_newcomers_that_were_held_back_are_served_after_the_other_model() -> None:
    """Nobody is forgotten: the busy model comes back for them."""
    world = World(plain("a", "b"))
    keep_busy(world, "a", every=1.0, seconds=4.0, until=60.0)
    world.ask("b", at=10.0)
    world.run()
    assert [(gone, come) for _when, gone, come in world.swaps] == [("a", "b"), ("b", "a")]
    assert all(one.served is not None for one in world.asked)


def test_priority_starves_nobody() -> None:
    """An endless stream for a model of higher priority yields to who has waited for max_wait."""
    world = World([*plain("a", "c", priority=9), *plain("b")])
    in_turns(world, "a", think=0.1, seconds=2.0, until=300.0, tool_calls=False)
    in_turns(world, "c", think=0.1, seconds=2.0, until=300.0, tool_calls=False)
    asked = world.ask("b", at=20.0)
    world.run(until=200.0)
    assert asked.waited <= MAX_WAIT + 2 * (2.0 + STOP + LOAD) + STOP + LOAD


def test_a_third_model_does_not_prolong_the_wait() -> None:
    """A model that would run beside the busy one, but not beside who waits, is not started any more."""
    groups = Groups({"X": Group(members=("x",)), "L": Group(members=("a", "b"), swap=False, exclusive=False)})
    world = World(plain("a", "b", "x"), groups)
    keep_busy(world, "a", every=1.0, seconds=4.0, until=100.0)
    asked = world.ask("x", at=10.0)
    world.ask("b", at=10.0 + MAX_WAIT + 1.0, seconds=100.0)
    world.run(until=80.0)
    assert asked.waited <= MAX_WAIT + 4.0 + STOP + LOAD


def test_who_waits_in_the_busy_engines_gate_can_be_called_back() -> None:
    """Newcomers that were let through before somebody became overdue, but not yet served, give their place up."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=50.0)
    asked = world.ask("b", at=10.0)
    late = world.ask("a", at=20.0, seconds=500.0)
    world.run(until=10.0 + MAX_WAIT)
    (recall,) = [effect for effect in world.log if isinstance(effect, Recall)]
    assert recall == Recall("a", asked.wish.number)
    assert late.wish.number > recall.newer_than
    world.do(world.schedule.recall(late.wish, world.now))
    world.run(until=100.0)
    assert asked.served == pytest.approx(LOAD + 50.0 + STOP + LOAD)
    served = [effect.wish for effect in world.log if isinstance(effect, Serve)]
    assert served[-2:] == [asked.wish, late.wish]


def test_calling_back_who_does_not_run_changes_nothing() -> None:
    """Its answer ended meanwhile, or it never ran."""
    world = World(plain("a"))
    asked = world.ask("a")
    assert world.schedule.recall(asked.wish, 0.0) == []
    world.run()
    assert world.schedule.recall(asked.wish, world.now) == []


def test_an_answer_that_ended_in_tool_calls_holds_the_model() -> None:
    """For the next request of that conversation comes in a moment; then the other model comes."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=7.0, tool_calls=True)
    asked = world.ask("b", at=9.0)
    world.run()
    assert asked.served == pytest.approx(LOAD + 7.0 + 5.0 + STOP + LOAD)


def test_another_answer_holds_nothing() -> None:
    """Without tool calls the swap begins when the answer has ended."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=7.0)
    asked = world.ask("b", at=9.0)
    world.run()
    assert asked.served == pytest.approx(LOAD + 7.0 + STOP + LOAD)


def test_a_first_swap_is_at_once() -> None:
    """A machine that idles while somebody waits helps nobody, however long the load before it took."""
    world = World(plain("a", "b", min_resident=None), load=lambda _model: 20.0)
    world.ask("a", at=0.0)
    asked = world.ask("b", at=21.5)
    world.run()
    assert asked.waited == pytest.approx(STOP + 20.0)


def test_models_that_take_turns_too_often_stay_as_long_as_their_load_took() -> None:
    """From the fourth swap within `max_wait` on, half of the time at least is spent on answers, not on loads."""
    world = World(plain("a", "b", min_resident=None), load=lambda _model: 4.0)
    asked = [world.ask("ab"[turn % 2], at=turn * 6.0, seconds=0.5) for turn in range(6)]
    world.run()
    waits = [one.waited for one in asked]
    assert waits[:4] == [pytest.approx(4.0), *[pytest.approx(STOP + 4.0)] * 3]
    assert waits[4] == pytest.approx(1.0 + 4.0 + STOP + 4.0 - 1.0, abs=1.0)
    assert waits[4] > STOP + 4.0 + 2.0


def test_turns_that_were_taken_long_ago_hold_nothing() -> None:
    """Three swaps in an hour are no ping-pong."""
    world = World(plain("a", "b", min_resident=None), load=lambda _model: 4.0)
    asked = [world.ask("ab"[turn % 2], at=turn * 20.0, seconds=0.5) for turn in range(6)]
    world.run()
    assert [one.waited for one in asked[1:]] == [pytest.approx(STOP + 4.0)] * 5


def test_a_model_that_nobody_used_is_not_held() -> None:
    """Its client left during the load: the next one comes at once."""
    world = World(plain("a", "b", min_resident=None), load=lambda _model: 20.0)
    world.ask("a", at=0.0, patience=1.0)
    asked = world.ask("b", at=21.0)
    world.run()
    assert asked.waited == pytest.approx(STOP + 20.0)


def test_a_model_that_was_loaded_on_purpose_is_held() -> None:
    """An explicit load counts as a use."""
    world = World(plain("a", "b", min_resident=10.0))
    world.ask("a", at=0.0, load=True)
    asked = world.ask("b", at=5.0)
    world.run()
    assert asked.served == pytest.approx(LOAD + 10.0 + STOP + LOAD)


def test_a_reload_may_shorten_the_longest_wait() -> None:
    """It counts for those who wait already."""
    world = World(plain("a", "b", linger=HOUR))
    world.ask("a", at=0.0, tool_calls=True)
    asked = world.ask("b", at=10.0)
    world.run(until=11.0)
    world.settings.take(config(swap__max_wait=2.0))
    world.do(world.schedule.configure(plain("a", "b", linger=HOUR), rules=world.rules, now=world.now))
    world.run()
    assert asked.waited == pytest.approx(2.0 + STOP + LOAD)


def test_nothing_is_held_beyond_max_wait() -> None:
    """Not by linger, not by min_resident."""
    world = World(plain("a", "b", min_resident=HOUR, linger=HOUR))
    world.ask("a", at=0.0, tool_calls=True)
    asked = world.ask("b", at=10.0)
    world.run()
    assert asked.waited == pytest.approx(MAX_WAIT + STOP + LOAD)


@pytest.mark.parametrize("think", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("pause", [1.0, 7.0, 20.0])
def test_an_agent_and_a_voice_assistant(think: float, pause: float) -> None:
    """The agent loses its place at most once per max_wait, and gets it back; nobody waits longer than that."""
    world = World([ModelSettings(id="agent"), ModelSettings(id="voice")])
    in_turns(world, "agent", think=think, seconds=2.0, until=HOUR)
    in_turns(world, "voice", think=pause, seconds=1.0, until=HOUR, tool_calls=False)
    world.run()
    lost = [when for when, gone, _come in world.swaps if gone == "agent" and when < HOUR]
    assert len(lost) > 20
    assert all(later - earlier >= MAX_WAIT for earlier, later in itertools.pairwise(lost))
    assert len(world.swaps) <= 2 * HOUR / MAX_WAIT + 2
    assert max(one.waited for one in world.asked) <= MAX_WAIT + 2.0 + 2 * (STOP + LOAD)


def test_two_agents() -> None:
    """Two conversations in the middle of tool calls: each place is kept for max_wait, swaps are as rare as that."""
    world = World([ModelSettings(id="a"), ModelSettings(id="b")])
    for model in "ab":
        in_turns(world, model, think=1.0, seconds=2.0, until=HOUR)
    world.run()
    whens = [when for when, _gone, _come in world.swaps if when < HOUR]
    assert all(later - earlier >= MAX_WAIT for earlier, later in itertools.pairwise(whens))
