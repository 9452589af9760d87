"""Starts that fail, engines that die, and configurations that change."""

from __future__ import annotations

import pytest

from bioproxy.models.book import ModelSettings
from bioproxy.models.effects import Start, Stop
from bioproxy.models.groups import Groups
from bioproxy.models.state import State
from support.swap_world import LOAD, STOP, World

BROKEN = "engine exited with code 1: cannot open model.gguf"


def plain(*names: str, launch: str = "") -> list[ModelSettings]:
    return [ModelSettings(id=name, min_resident=0.0, launch=launch) for name in names]


def outcomes(world: World, **of: list[float | str]) -> None:
    """What each model's starts come to, one after the other; the last one for ever."""
    left = {model: list(results) for model, results in of.items()}

    def load(model: str) -> float | str:
        results = left.get(model, [LOAD])
        return results.pop(0) if len(results) > 1 else results[0]

    world.load = load


def test_a_failed_start_is_told_to_all_who_wait() -> None:
    """With the engine's last words, and when to come again."""
    world = World(["a"], load=lambda _model: BROKEN)
    asked = [world.ask("a"), world.ask("a", at=1.0)]
    world.run()
    assert all(one.failed is not None and one.failed.reason == BROKEN for one in asked)
    assert asked[0].failed is not None
    assert (asked[0].failed.why, asked[0].failed.retry_after) == ("failed", 1)
    assert world.schedule.state("a") is State.FAILED


def test_during_the_back_off_requests_are_told_at_once() -> None:
    """No start per request."""
    world = World(["a"], load=lambda _model: BROKEN)
    world.ask("a", at=0.0)
    asked = world.ask("a", at=LOAD + 0.5)
    world.run()
    assert asked.failed is not None
    assert asked.over == LOAD + 0.5
    assert asked.failed.reason == BROKEN
    assert world.starts["a"] == 1


def test_the_back_off_grows_to_a_minute() -> None:
    """A client that asks ten times a second for ten minutes causes a dozen starts."""
    world = World(["a"], load=lambda _model: BROKEN)
    for at in range(6000):
        world.ask("a", at=at / 10)
    world.run()
    whens = [one.retry_at for one in world.schedule.statistics().models]
    assert world.starts["a"] <= 6 + 600 / 60 + 2
    assert whens[0] > 600.0


def test_after_the_back_off_a_request_tries_again() -> None:
    """And where that succeeds, the failures are forgotten when the process was sound."""
    world = World(["a"])
    outcomes(world, a=[BROKEN, LOAD])
    world.ask("a", at=0.0)
    asked = world.ask("a", at=10.0)
    world.crash("a", 100.0)
    world.run()
    assert asked.served == pytest.approx(10.0 + LOAD)
    assert world.schedule.statistics().models[0].failures == 0


def test_an_explicit_load_ends_the_back_off() -> None:
    """Somebody mended it and says so."""
    world = World(["a"])
    outcomes(world, a=[BROKEN, LOAD])
    world.ask("a", at=0.0)
    asked = world.ask("a", at=LOAD + 0.1, load=True)
    world.run()
    assert asked.waited == pytest.approx(LOAD)


def test_a_changed_configuration_ends_the_back_off() -> None:
    """The next request starts it."""
    world = World(plain("a"))
    outcomes(world, a=[BROKEN, LOAD])
    world.ask("a", at=0.0)
    world.run(until=LOAD + 0.1)
    world.do(world.schedule.configure(plain("a", launch="mended"), rules=world.rules, now=world.now))
    assert world.schedule.state("a") is State.STOPPED
    asked = world.ask("a")
    world.run()
    assert asked.waited == pytest.approx(LOAD)


def test_a_failed_start_lets_the_next_model_in() -> None:
    """Who waits behind a broken model is served."""
    world = World(plain("a", "b"))
    outcomes(world, a=[BROKEN])
    world.ask("a")
    asked = world.ask("b")
    world.run()
    assert asked.served == pytest.approx(LOAD + LOAD)


def test_a_start_that_dies_after_anothers_stop_is_tried_once_more() -> None:
    """Drivers free memory late: after two seconds it works, and nobody hears of the first try."""
    world = World(plain("a", "b"))
    outcomes(world, b=["CUDA error: out of memory", LOAD])
    world.ask("a", at=0.0)
    asked = world.ask("b", at=10.0)
    world.run()
    assert asked.failed is None
    assert asked.waited == pytest.approx(STOP + LOAD + 2.0 + LOAD)
    assert [effect.again for effect in world.log if isinstance(effect, Start)] == [False, False, True]


def test_the_second_try_is_the_last() -> None:
    """Then it is told."""
    world = World(plain("a", "b"))
    outcomes(world, b=[BROKEN])
    world.ask("a", at=0.0)
    asked = world.ask("b", at=10.0)
    world.run()
    assert asked.failed is not None
    assert world.starts["b"] == 2


def test_a_second_try_keeps_its_place() -> None:
    """Nobody else starts in the two seconds in between."""
    world = World(plain("a", "b"))
    outcomes(world, b=[BROKEN, LOAD])
    world.ask("a", at=0.0)
    world.ask("b", at=10.0), world.ask("a", at=10.0 + STOP + LOAD + 1.0)
    world.run()
    assert [effect.model for effect in world.log if isinstance(effect, Start)] == ["a", "b", "b", "a"]


def test_a_second_try_that_nobody_waits_for_is_dropped() -> None:
    """Its client left in the two seconds: the next one gets a first try again."""
    world = World(plain("a", "b"))
    outcomes(world, b=[BROKEN, LOAD])
    world.ask("a", at=0.0)
    world.ask("b", at=10.0, patience=STOP + LOAD + 1.0)
    asked = world.ask("b", at=60.0)
    world.run()
    assert [effect.again for effect in world.log if isinstance(effect, Start)] == [False, False, False]
    assert asked.waited == pytest.approx(LOAD)


def test_long_after_anothers_stop_there_is_no_second_try() -> None:
    """It died for another reason."""
    world = World(plain("a", "b"))
    outcomes(world, b=[BROKEN])
    world.ask("a", at=0.0)
    world.at(10.0, lambda: world.do(world.schedule.unload("a", world.now)))
    world.ask("b", at=40.0)
    world.run()
    assert world.starts["b"] == 1


def test_an_engine_that_dies_is_started_by_the_next_request() -> None:
    """A crash is no failure, if it ran for a while."""
    world = World(plain("a"))
    world.ask("a", at=0.0, seconds=1000.0)
    world.crash("a", 50.0)
    asked = world.ask("a", at=50.1)
    world.run()
    assert asked.waited == pytest.approx(LOAD)
    assert not world.schedule.statistics().models[0].failures


def test_an_engine_that_is_killed_soon_after_its_start_is_started_again() -> None:
    """Whoever asks next waits for the new process, whether a request ran on the old one or none, and once more."""
    world = World(plain("a"))
    world.ask("a", at=0.0, seconds=1.0)
    world.crash("a", LOAD + 5.0)
    first = world.ask("a", at=LOAD + 5.1, seconds=100.0)
    world.crash("a", 2 * LOAD + 6.0)
    second = world.ask("a", at=2 * LOAD + 6.1)
    world.run()
    assert first.waited == pytest.approx(LOAD)
    assert second.waited == pytest.approx(LOAD)
    assert not world.schedule.statistics().models[0].failures


def dies_early(world: World, times: int) -> float:
    """`a` is asked for and dies 1.5 s after it was ready, so often in a row; the time after the last of these ends."""
    now = 0.0
    for _ in range(times):
        world.ask("a", at=now)
        world.crash("a", now + LOAD + 1.5)
        now += LOAD + 2.0
    return now


def test_an_engine_that_dies_right_after_each_start_is_backed_off() -> None:
    """Healthy and then dead, three times in a row, is a failed start."""
    world = World(plain("a"))
    asked = world.ask("a", at=dies_early(world, 3))
    world.run()
    assert asked.failed is not None
    assert asked.failed.reason == "crashed"


@pytest.mark.parametrize("how", ["unload", "crash"])
def test_early_ends_with_a_better_life_between_them_are_not_in_a_row(how: str) -> None:
    """Twice, then a life that was stopped or lasted for a while, then once more: the next request starts it."""
    world = World(plain("a"))
    now = dies_early(world, 2)
    world.ask("a", at=now)
    if how == "crash":
        world.crash("a", now + LOAD + 20.0)
    else:
        world.at(now + LOAD + 2.0, lambda: world.do(world.schedule.unload("a", world.now)))
    world.ask("a", at=now + 40.0)
    world.crash("a", now + 40.0 + LOAD + 1.5)
    asked = world.ask("a", at=now + 50.0)
    world.run()
    assert asked.waited == pytest.approx(LOAD)


@pytest.mark.parametrize("how", ["unload", "ttl", "crash", "reload"])
def test_a_start_that_fails_right_after_its_models_own_end_is_tried_again(how: str) -> None:
    """A container's name is free a moment after its process ended, and memory too: nobody hears of the first try."""
    ttl = 5.0 if how == "ttl" else 0.0
    world = World([ModelSettings(id="a", ttl=ttl)])
    outcomes(world, a=[LOAD, BROKEN, LOAD])
    world.ask("a", at=0.0)
    ends = 8.0
    if how == "unload":
        world.at(ends, lambda: world.do(world.schedule.unload("a", world.now)))
    elif how == "crash":
        world.crash("a", ends)
    elif how == "reload":
        changed = [ModelSettings(id="a", launch="other")]
        world.at(ends, lambda: world.do(world.schedule.configure(changed, rules=world.rules, now=world.now)))
    asked = world.ask("a", at=ends + 2.0)
    world.run()
    assert asked.failed is None
    assert world.starts["a"] == 3
    assert not world.schedule.statistics().models[0].failures


def test_a_reload_leaves_alone_what_did_not_change() -> None:
    """Its request runs on, and its new time to live counts."""
    world = World(plain("a"))
    asked = world.ask("a", seconds=100.0)
    world.run(until=10.0)
    settings = [ModelSettings(id="a", ttl=5.0), ModelSettings(id="new")]
    world.do(world.schedule.configure(settings, rules=world.rules, now=world.now))
    fresh = world.ask("new")
    world.run()
    assert asked.over == pytest.approx(LOAD + 100.0)
    assert fresh.served is not None
    assert world.starts["a"] == 1


def test_a_reload_restarts_what_changed_for_those_who_wait() -> None:
    """Requests that run get their grace, newcomers are served by the new process."""
    world = World(plain("a"))
    running = world.ask("a", seconds=10.0)
    world.run(until=10.0)
    world.do(world.schedule.configure(plain("a", launch="other"), rules=world.rules, now=world.now))
    asked = world.ask("a")
    world.run()
    assert running.over == pytest.approx(LOAD + 10.0)
    assert asked.served == pytest.approx(LOAD + 10.0 + STOP + LOAD)
    assert [effect.reason for effect in world.log if isinstance(effect, Stop)] == ["reload"]


def test_a_reload_takes_away_what_is_gone() -> None:
    """Its process ends, who waits for it is told, and the name is unknown."""
    world = World(plain("a", "b"))
    world.ask("a", at=0.0, seconds=100.0)
    waits = world.ask("b", at=5.0)
    world.run(until=10.0)
    world.do(world.schedule.configure(plain("c"), rules=Groups({}), now=world.now))
    assert waits.failed is not None
    assert waits.failed.why == "removed"
    refused = world.ask("a")
    assert refused.failed is not None
    assert refused.failed.why == "unknown"
    asked = world.ask("c")
    world.run()
    assert asked.served is not None
    assert [one.model for one in world.schedule.statistics().models] == ["c"]


def test_who_is_called_back_after_its_model_was_taken_away_is_told() -> None:
    """It still waited in the gate of an engine that has no name any more; the same after a shutdown."""
    world = World(plain("a", "b"), Groups({}))
    first, second = world.ask("a", seconds=100.0), world.ask("a", seconds=100.0)
    world.run(until=10.0)
    world.do(world.schedule.configure(plain("b"), rules=world.rules, now=world.now))
    world.do(world.schedule.recall(first.wish, world.now))
    assert first.failed is not None
    assert first.failed.why == "removed"
    world.do(world.schedule.close(world.now))
    world.do(world.schedule.recall(second.wish, world.now))
    assert second.failed is not None
    assert second.failed.why == "shutdown"


def test_a_model_that_comes_back_before_it_went_stays() -> None:
    """Removed and added again while its request runs: nothing happened."""
    world = World(plain("a"))
    asked = world.ask("a", seconds=8.0)
    world.run(until=4.0)
    world.do(world.schedule.configure([], rules=world.rules, now=world.now))
    world.run(until=5.0)
    world.do(world.schedule.configure(plain("a"), rules=world.rules, now=world.now))
    world.run()
    assert asked.over == pytest.approx(LOAD + 8.0)
    assert world.running() == ["a"]
