"""Which target of a selector takes a request."""

from __future__ import annotations

import pytest

from bioproxy.config.dialect.schema import Selector, SelectorSettings
from bioproxy.models.selectors import Candidate, View, choose
from bioproxy.models.state import State

STATES = {"-": State.STOPPED, "s": State.STARTING, "r": State.READY, "x": State.STOPPING, "f": State.FAILED}


def view(now: str) -> View:
    """`"r2"` for each target: its state's letter (p: a peer's) and how many requests it has."""
    targets = dict(zip("abc", now.split(), strict=False))
    return lambda name: Candidate(name, STATES.get(targets[name][0]), int(targets[name][1:] or 0))


def chosen(strategy: str, now: str, *, spillover: int = 1, turn: int = 0) -> str | None:
    targets = tuple("abc"[: len(now.split())])
    return choose(
        Selector(strategy=strategy, targets=targets, settings=SelectorSettings(spillover=spillover)),
        view(now),
        turn=turn,
    )


@pytest.mark.parametrize("now", ["- r", "x r", "f r"])
def test_pin(now: str) -> None:
    """Always the first, whatever its state."""
    assert chosen("pin", now) == "a"


@pytest.mark.parametrize(
    ("now", "target"),
    [("- - r", "c"), ("s r -", "b"), ("- s s", "b"), ("- - -", "a"), ("x - -", "a"), ("r r r", "a")],
)
def test_warm(now: str, target: str) -> None:
    """The first that is ready, else the first that starts, else the first."""
    assert chosen("warm", now) == target


@pytest.mark.parametrize(
    ("now", "spillover", "target"),
    [
        ("- - -", 1, "a"),
        ("r - -", 1, "a"),
        ("r1 - -", 1, "b"),
        ("r1 - -", 2, "a"),
        ("r1 s1 -", 1, "c"),
        ("r2 r1", 1, "b"),
        ("x - -", 1, "b"),
        ("x r1 -", 1, "c"),
        ("x x x", 1, None),
        ("p1 -", 2, "a"),
        ("p -", 1, "a"),
        ("r1 p", 1, "b"),
    ],
)
def test_spillover(now: str, spillover: int, target: str | None) -> None:
    """The least busy while it has room, then the next that does not run, then the least busy."""
    assert chosen("spillover", now, spillover=spillover) == target


def test_equally_busy_targets_take_turns() -> None:
    """Round robin, among the least busy only."""
    assert [chosen("spillover", "r1 r1 r2", turn=turn) for turn in range(4)] == ["a", "b", "a", "b"]
