"""Decisions as functions of numbers: restore, save, evict, refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.kv import policy
from bioproxy.kv.policy import GIB, Speeds, Template, Value

FAST_DISK = Speeds(prefill=0.001, restore=1e9, save=5e8, token_bytes=1e5)

speeds = st.builds(
    Speeds,
    prefill=st.floats(1e-6, 1),
    restore=st.floats(1e6, 1e11),
    save=st.floats(1e6, 1e11),
    poke=st.floats(1e-4, 2),
)
values = st.lists(
    st.builds(
        Value,
        id=st.uuids().map(str),
        size=st.integers(1, 1 << 40),
        seconds=st.floats(0, 1e4),
        age=st.floats(-10, 1e8),
        rank=st.integers(0, 2),
    ),
    max_size=12,
    unique_by=lambda value: value.id,
)


def test_a_restore_pays_when_reading_is_faster_than_evaluating() -> None:
    """Rule 15: 3000 tokens in 300 MB, 3 s of prefill against 0.3 s of reading."""
    assert policy.worth_restoring(3000, 300_000_000, speeds=FAST_DISK, min_seconds=0.5)


def test_a_restore_from_a_slow_disk_does_not_pay() -> None:
    """Rule 15: the same from a disk that reads 50 MB a second."""
    slow = Speeds(prefill=0.001, restore=5e7)
    assert not policy.worth_restoring(3000, 300_000_000, speeds=slow, min_seconds=0.5)


def test_a_few_tokens_are_not_worth_a_restore() -> None:
    """Less than `kv.min_seconds` of prefill is left to the engine."""
    assert not policy.worth_restoring(400, 1000, speeds=FAST_DISK, min_seconds=0.5)


@given(st.integers(0, 1 << 20), st.integers(1, 1 << 40), speeds, st.floats(0, 10))
def test_what_pays_spares_time(tokens: int, size: int, speed: Speeds, least: float) -> None:
    """No restore is ever tried that costs its user time, by what was measured."""
    if policy.worth_restoring(tokens, size, speeds=speed, min_seconds=least):
        assert policy.restore_gain(tokens, size, speed) > 0
        assert tokens * speed.prefill >= least


@given(st.integers(0, 1 << 20), st.integers(1, 1 << 40), speeds, st.floats(0, 10))
def test_a_displaced_save_is_stricter_than_an_idle_one(tokens: int, size: int, speed: Speeds, least: float) -> None:
    """Rule 17: with a user waiting only a tenth of the preserved prefill may be spent."""
    idle = policy.worth_saving(tokens, tokens, size, speeds=speed, min_seconds=least)
    displaced = policy.worth_saving(tokens, tokens, size, speeds=speed, min_seconds=least, displaced=True)
    assert idle or not displaced
    if displaced:
        assert size / speed.save <= 0.1 * tokens * speed.prefill


def test_nothing_new_is_not_saved() -> None:
    """What is on disk already is not written again, however small `kv.min_seconds` is."""
    assert not policy.worth_saving(0, 5000, 1000, speeds=FAST_DISK, min_seconds=0.0)


def test_what_cannot_be_restored_with_profit_is_not_saved() -> None:
    """Rule 20: a save is worth no more than its restore."""
    slow = Speeds(prefill=0.0001, restore=1e6)
    assert not policy.worth_saving(10_000, 10_000, 1 << 30, speeds=slow, min_seconds=0.1)


def test_a_poke_must_be_cheap_for_what_it_keeps() -> None:
    """Rule 16: on a slow engine one token may cost more than a short conversation is worth."""
    assert policy.worth_poking(1000, Speeds(prefill=0.001, poke=0.02))
    assert not policy.worth_poking(10, Speeds(prefill=0.001, poke=0.02))


@pytest.mark.parametrize(
    ("expected", "cached", "question", "verdict"),
    [
        (1322, 1322, "templates", "good"),
        (1322, 1314, "templates", "good"),
        (1322, 1313, "templates", "worthless"),
        (1322, 0, "extends", "worthless"),
        (1322, 900, "extends", "short"),
        (1322, 0, "diverges", "short"),
        (1322, 0, "repeats", "short"),
        (1322, 1321, "repeats", "good"),
        (5, 0, "templates", "good"),
    ],
)
def test_a_restore_is_judged_by_what_was_used(
    expected: int, cached: int, question: policy.Question, verdict: str
) -> None:
    """Rule 6: eight tokens may be missing; what a model cannot do with a file is never the file's fault."""
    assert policy.judge(expected, cached, question=question) == verdict


@pytest.mark.parametrize(("cached", "good"), [(0, False), (600, False), (660, True), (1322, True)])
def test_a_restore_of_which_little_was_used_is_no_success(cached: int, *, good: bool) -> None:
    """Half of what was counted on is the least, and nothing is never enough."""
    assert policy.came_back(1322, cached) is good
    assert not policy.came_back(5, 0)


@given(values, st.integers(-10, 1 << 42))
def test_eviction_frees_what_is_asked_and_no_more(snapshots: list[Value], excess: int) -> None:
    """Rule 18: enough goes (or everything), and without the last one it would not have been enough."""
    gone = policy.evict(snapshots, excess)
    size = {value.id: value.size for value in snapshots}
    freed = sum(size[identity] for identity in gone)
    assert freed >= min(max(0, excess), sum(size.values()))
    if gone:
        assert freed - size[gone[-1]] < excess


@given(values, st.integers(1, 1 << 42))
def test_nothing_valuable_goes_before_something_worthless(snapshots: list[Value], excess: int) -> None:
    """Rule 18: by rank first, then by seconds saved per byte, aged."""
    gone = set(policy.evict(snapshots, excess))
    for lost in (value for value in snapshots if value.id in gone):
        for kept in (value for value in snapshots if value.id not in gone):
            assert (lost.rank, lost.worth) <= (kept.rank, kept.worth)


def test_age_halves_a_snapshots_worth_each_week() -> None:
    """An old conversation goes before a fresh one of the same size."""
    fresh = Value(id="a", size=10, seconds=8, age=0)
    old = Value(id="b", size=10, seconds=8, age=policy.HALF_LIFE)
    assert old.worth == pytest.approx(fresh.worth / 2)


def test_the_current_version_of_each_template_goes_last() -> None:
    """Rule 18: never the only snapshot of a template in use, of two heads the one used last."""
    templates = [
        Template("old", "@code", "1", used=9.0),
        Template("one head", "@code", "2", used=5.0),
        Template("other head", "@code", "2", used=6.0),
        Template("unknown", "@rules", "7", used=1.0),
    ]
    assert policy.needed(templates, {"@code": "2"}) == {"other head", "unknown"}


@given(st.integers(0, 1 << 45), st.integers(0, 1 << 45))
def test_the_default_budget_does_not_shrink_while_it_fills(ours: int, free: int) -> None:
    """What our snapshots take counts as free; never above 20 GiB."""
    moved = free // 2
    assert policy.disk_budget(0, ours=ours, free=free) == policy.disk_budget(0, ours=ours + moved, free=free - moved)
    assert policy.disk_budget(0, ours=ours, free=free) <= 20 * GIB
    assert policy.disk_budget(7, ours=ours, free=free) == 7


def limits(**changes: int) -> policy.Refusal | None:
    usual = {"budget": 100, "free": 1000, "min_free": 500, "written": 0, "write_budget": 1000}
    return policy.refuses(90, **(usual | changes))


def test_each_limit_of_the_disk_has_its_own_refusal() -> None:
    """Rule 18: too large for the budget, disk nearly full, too much written today; only the first is one file's own."""
    assert limits() is None
    refusals = [limits(budget=80), limits(free=580), limits(written=950)]
    found = [(one.kind, one.pauses) for one in refusals if one is not None]
    assert found == [("too_large", False), ("min_free", True), ("write_budget", True)]


def test_a_refusal_says_what_the_snapshot_takes() -> None:
    """Or nobody understands why 4 MiB that are free are too few; a `min_free` of nothing cannot be lowered."""
    full = policy.refuses(7 << 20, budget=GIB, free=4 << 20, min_free=0, written=0, write_budget=GIB)
    assert full is not None
    assert full.reason == "4.0 MiB are free, a snapshot takes 7.0 MiB and kv.min_free keeps 0.0 MiB; free some space"
    spent = policy.refuses(7 << 20, budget=GIB, free=GIB, min_free=0, written=GIB - 1, write_budget=GIB)
    assert spent is not None
    assert ", a snapshot takes 7.0 MiB and kv.write_budget allows 1.0 GiB" in spent.reason


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_nobody_asks_for_again_is_not_worth_a_byte(tokens: int, covered: int, lasting: int) -> None:
    """Only what will be asked for again counts, and of that what is on no disk; if all of it lasts, all that is new."""
    found = policy.findable(tokens, covered, lasting=lasting)
    assert 0 <= found <= min(tokens, lasting)
    assert policy.findable(tokens, covered, lasting=tokens) == max(0, tokens - covered)
    assert policy.findable(tokens, max(covered, lasting), lasting=lasting) == 0


def test_what_an_engines_answers_taught() -> None:
    """The newest counts most, and no answer is longer than its client allows."""
    one = policy.Measured()
    assert one.tokens(400) == 100.0
    one.note(1000, 500, 100, 2.0)
    assert one.tokens(400) == 200.0
    assert one.seconds() == 2.0
    assert one.seconds(10) == pytest.approx(0.2)
    one.note(1000, 500, 200, 4.0)
    assert 2.0 < one.seconds() < 4.0
    one.note(0, 0, None, None)
    assert one.tokens(400) == 200.0


def test_the_days_last_bytes_go_to_what_is_worth_most() -> None:
    """Anything while half of the budget is left, then what is above a bar that rises."""
    bars = [policy.least_worth(written, 50.0, 1000) for written in (0, 500, 750, 1000)]
    assert bars == pytest.approx([0.0, 0.0, 0.5 * 50 / 750, 50 / 1000])
