"""Whatever comes when: a machine that tries orders of events, and the promises that hold in all of them.

`World` checks after every step that no two engines run that may not run together; here: every request gets an end, no
wake-up is lost, and nobody waits longer than the rules allow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bioproxy.config.dialect.schema import Group
from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.models import home
from bioproxy.models.book import ModelSettings
from bioproxy.models.effects import Stop
from bioproxy.models.groups import Groups
from bioproxy.models.matrix import Matrix
from bioproxy.models.rules import Rules
from bioproxy.models.wish import Place
from support.swap_world import LOAD, World

NAMES = "abcde"
PAIRS = " | ".join(f"({one} & {other})" for one, other in combinations(NAMES, 2))
MAX_WAIT = 30.0
LONGEST_LOAD, LONGEST_STOP, LONGEST_ANSWER = 20.0, 5.0, 15.0
RULES: dict[str, Callable[[], Rules]] = {
    "one at a time": lambda: Groups({}),
    "two groups": lambda: Groups({"1": Group(members=("a", "b")), "2": Group(members=("c", "d"), exclusive=False)}),
    "side by side": lambda: Groups({"1": Group(members=("a", "b", "c"), swap=False), "2": Group(members=("d",))}),
    "persistent": lambda: Groups({"1": Group(members=("a",), persistent=True), "2": Group(members=("b", "c"))}),
    "room for two": lambda: Matrix(MatrixSettings(sets={"s": PAIRS}), NAMES),
    "pinned": lambda: Matrix(MatrixSettings(sets={"s": PAIRS}), NAMES, pinned="bc"),
    "matrix": lambda: Matrix(MatrixSettings(sets={"x": "(a | b) & c", "y": "d & (b | e)", "z": "a & b & e"}), NAMES),
}


class Wish(msgspec.Struct, frozen=True):
    """One request of a plan."""

    model: str
    pause: float  # seconds since the one before
    seconds: float
    patience: float
    tool_calls: bool
    load: bool


pauses = st.sampled_from([0.0, 0.0, 0.1, 1.0, 3.0, 10.0, 40.0])
wishes = st.builds(
    Wish,
    model=st.sampled_from(NAMES),
    pause=pauses,
    seconds=st.sampled_from([0.0, 0.5, 5.0, LONGEST_ANSWER]),
    patience=st.sampled_from([0.5, 5.0] + [float("inf")] * 4),
    tool_calls=st.booleans(),
    load=st.sampled_from([False] * 5 + [True]),
)
loads = st.sampled_from([0.0, 1.0, LOAD, LONGEST_LOAD])
stops = st.sampled_from([0.0, 1.0, LONGEST_STOP])


def play(world: World, plan: list[Wish]) -> None:
    """Ask for everything in a plan, and let time pass until nothing happens any more."""
    at = 0.0
    for wish in plan:
        at += wish.pause
        world.ask(
            wish.model, at=at, seconds=wish.seconds, patience=wish.patience, tool_calls=wish.tool_calls, load=wish.load
        )  # fmt: skip
    world.run()


def models(draw: Callable[[Any], Any]) -> list[ModelSettings]:
    """Settings of all models."""
    residence = st.sampled_from([None, 0.0, 100.0])
    return [
        ModelSettings(
            id=name,
            priority=draw(st.integers(0, 2)),
            min_resident=draw(residence),
            ttl=draw(st.sampled_from([0.0, 0.0, 7.0])),
            home=draw(st.sampled_from([0.0, 5.0])) if name == "a" else 0.0,
            pin=draw(st.booleans()),
        )
        for name in NAMES
    ]


@pytest.mark.parametrize("kind", RULES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), plan=st.lists(wishes, max_size=25))
def test_every_request_ends_in_bounded_time(kind: str, data: st.DataObject, plan: list[Wish]) -> None:
    """Healthy engines: who does not leave is served, within max_wait and the turns of those who were there before."""
    world = World(
        models(data.draw), RULES[kind](), load=lambda _model: data.draw(loads), stop=lambda _model: data.draw(stops)
    )
    play(world, plan)
    assert world.settled
    turn = LONGEST_ANSWER + LONGEST_STOP + LONGEST_LOAD
    for asked in world.asked:
        assert asked.failed is None
        if asked.served is not None:
            assert asked.waited <= MAX_WAIT + turn * (len(NAMES) + 1)


@pytest.mark.parametrize("kind", RULES)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), plan=st.lists(wishes, max_size=25))
def test_every_request_ends_whatever_the_engines_do(kind: str, data: st.DataObject, plan: list[Wish]) -> None:
    """Starts that fail, crashes at any time: each request is served or told, and nothing hangs."""
    world = World(
        models(data.draw),
        RULES[kind](),
        load=lambda _model: data.draw(st.one_of(loads, st.just("broken"))),
        stop=lambda _model: data.draw(stops),
    )
    for model, at in data.draw(st.lists(st.tuples(st.sampled_from(NAMES), st.floats(0, 100)), max_size=5)):
        world.crash(model, at)
    play(world, plan)
    assert world.settled
    assert not world.schedule.book.waiting


@settings(max_examples=60, deadline=None)
@given(plan=st.lists(wishes.filter(lambda wish: wish.patience > 5.0), min_size=5, max_size=40))
def test_swaps_are_no_more_than_changes_of_mind(plan: list[Wish]) -> None:
    """Collation never costs a swap: there are at most as many as a queue in order of arrival would need."""
    world = World([ModelSettings(id=name) for name in NAMES])
    play(world, plan)
    changes = sum(one.model != other.model for one, other in itertools.pairwise(plan))
    assert len([effect for effect in world.log if isinstance(effect, Stop)]) <= changes


def settings_of(name: str, *, launch: str = "") -> ModelSettings:
    """The machine's models: it goes back to `a`, and `b` is pinned."""
    return ModelSettings(id=name, launch=launch, home=20.0 if name == "a" else 0.0, pin=name == "b")


class Machine(RuleBasedStateMachine):
    """An operator, clients and faults, in any order: requests, loads, unloads, reloads, recalls, crashes, time."""

    @initialize(kind=st.sampled_from(sorted(RULES)), loads=st.lists(st.one_of(loads, st.just("broken")), min_size=1))
    def begin(self, kind: str, loads: list[float | str]) -> None:
        """A machine whose starts come out as in the list, over and over."""
        self.kind = kind
        self.turns = 0
        self.world = World([settings_of(name) for name in NAMES], RULES[kind](), load=self.next_load)
        self.loads = loads

    def next_load(self, _model: str) -> float | str:
        """What the next start comes to."""
        self.turns += 1
        return self.loads[self.turns % len(self.loads)]

    @rule(model=st.sampled_from(NAMES), seconds=st.sampled_from([0.5, 5.0, 15.0]), tool_calls=st.booleans())
    def ask(self, model: str, seconds: float, *, tool_calls: bool) -> None:
        """A client comes."""
        self.world.ask(model, seconds=seconds, tool_calls=tool_calls)

    @rule(model=st.sampled_from(NAMES))
    def load(self, model: str) -> None:
        """An operator loads a model."""
        self.world.ask(model, load=True)

    @rule(model=st.sampled_from(NAMES), grace=st.sampled_from([None, 0.0, 3.0]))
    def unload(self, model: str, grace: float | None) -> None:
        """An operator unloads a model."""
        self.world.do(self.world.schedule.unload(model, self.world.now, grace=grace))

    @rule(at=st.integers(0, 30))
    def leave(self, at: int) -> None:
        """A client leaves, whether it waits or runs."""
        if at < len(self.world.asked):
            self.world.finish(self.world.asked[at])

    @rule()
    def recall(self) -> None:
        """Whoever runs is called back out of its engine's gate."""
        for asked in self.world.asked:
            if asked.wish.place is Place.RUNNING and asked.over is None:
                self.world.do(self.world.schedule.recall(asked.wish, self.world.now))
                return

    @rule(model=st.sampled_from(NAMES))
    def crash(self, model: str) -> None:
        """An engine dies."""
        self.world.crash(model, self.world.now)
        self.world.run(until=self.world.now)

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=3), launch=st.sampled_from(["", "other"]))
    def reload(self, names: set[str], launch: str) -> None:
        """Another configuration: models come, go and change."""
        models = [settings_of(name, launch=launch if name in "ab" else "") for name in sorted(names)]
        self.world.do(self.world.schedule.configure(models, rules=self.world.rules, now=self.world.now))

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 31.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.run(until=self.world.now + seconds)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def who_waits_has_a_wake_up(self) -> None:
        """As long as somebody waits, something is going to happen."""
        if self.world.schedule.book.waiting:
            assert self.world.events or self.world.schedule.wake < float("inf")

    def teardown(self) -> None:
        """In the end every request got an end."""
        if hasattr(self, "world"):
            self.world.run()
            assert self.world.settled
            assert math.isinf(home.due(self.world.schedule.book))


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
