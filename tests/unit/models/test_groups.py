"""Groups: who must stop so that another may run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.schema import Group
from bioproxy.models.groups import Groups
from bioproxy.models.rules import fitting
from support.swap_world import together

Named = tuple[str, Group]


def group(name: str, *members: str, **flags: bool) -> Named:
    return name, Group(members=members, **flags)


LOOSE = [group("G1", "a", exclusive=False), group("G2", "b", exclusive=False)]
PERSISTENT = [group("P", "p", persistent=True), group("G", "a")]
GOTCHA = [group("X", "x"), group("N", "n", exclusive=False)]


@pytest.mark.parametrize(
    ("groups", "model", "running", "evicted"),
    [
        ([group("G1", "a", "b")], "b", "a", "a"),
        ([group("G1", "a", "b", swap=False)], "b", "a", ""),
        ([group("G1", "a"), group("G2", "b")], "b", "a", "a"),
        (LOOSE, "b", "a", ""),
        (PERSISTENT, "a", "p", ""),
        (PERSISTENT, "p", "a", "a"),
        ([group("P", "p", "q", persistent=True)], "q", "p", "p"),
        (GOTCHA, "n", "x", ""),
        (GOTCHA, "x", "n", "n"),
        (GOTCHA, "x", "xn", ""),
        ([], "b", "a", "a"),
        ([group("G", "a", swap=False)], "z", "a", "a"),
        ([group("G", "a", swap=False, exclusive=False)], "a", "z", ""),
    ],
    ids=[
        "same group swaps", "same group without swap", "two exclusive groups", "two groups side by side",
        "persistent stays", "a persistent one that comes is exclusive too", "persistent does not help inside its group",
        "who comes decides: not exclusive", "who comes decides: exclusive", "who runs displaces nobody",
        "no groups: one at a time", "the default group is exclusive", "not exclusive beside the default group",
    ],
)  # fmt: skip
def test_who_must_stop(groups: list[Named], model: str, running: str, evicted: str) -> None:
    """The worked examples of llama-swap's documentation, and the cells between them."""
    assert Groups(dict(groups)).evict(model, set(running)) == frozenset(evicted)


def test_preload_takes_what_fits() -> None:
    """What would stop something that was preloaded before it is left out."""
    rules = Groups(dict([group("P", "p", persistent=True), group("G", "a", "b")]))
    assert fitting(["p", "a", "b", "a"], rules) == (["p", "a"], ["b"])


def test_together() -> None:
    """Whether some models may run at once, whoever comes last."""
    assert together("ab", Groups(dict(LOOSE)))
    assert not together("ab", Groups(dict([group("G", "a", "b")])))
    assert not together("xn", Groups(dict(GOTCHA)))


flags = st.fixed_dictionaries({
    "swap": st.booleans(), "exclusive": st.booleans(), "persistent": st.booleans(),
})  # fmt: skip


@given(st.tuples(flags, flags, flags), st.sets(st.sampled_from("abcdefgh")), st.sampled_from("abcdefgh"))
def test_what_is_left_lets_the_model_in(kinds: tuple[dict[str, bool], ...], running: set[str], model: str) -> None:
    """Only what runs is stopped, a persistent one never for another group's, and then nothing more has to stop."""
    groups = [group(str(at), *members, **kinds[at]) for at, members in enumerate(["ab", "cd", "ef"])]
    rules = Groups(dict(groups))
    gone = rules.evict(model, running)
    assert gone <= running
    assert not rules.evict(model, running - gone)
    of = {member: named for named in groups for member in named[1].members}
    kept = {member for member, named in of.items() if named[1].persistent and named != of.get(model)}
    assert not gone & kept
