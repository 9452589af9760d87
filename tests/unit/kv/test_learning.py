"""What is learnt about an engine, when saving pauses, and how a new build is judged."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import Probe
from bioproxy.events import Bus, SavingPaused
from bioproxy.kv.builds import same_answer
from bioproxy.kv.policy import Knowledge, Question
from bioproxy.kv.saver import Pause
from bioproxy.kv.shelves import Tenant


def test_speeds_follow_what_is_measured() -> None:
    """Exponential means, and only of what is large enough to tell."""
    knowledge = Knowledge()
    for _ in range(30):
        knowledge.evaluated(1000, 10.0)
        knowledge.moved(save=True, size=1 << 30, tokens=1 << 10, seconds=2.0)
        knowledge.moved(save=False, size=1 << 30, tokens=1 << 10, seconds=1.0)
    assert knowledge.speeds.prefill == pytest.approx(0.01, rel=0.01)
    assert knowledge.speeds.save == pytest.approx(1 << 29, rel=0.01)
    assert knowledge.speeds.restore == pytest.approx(1 << 30, rel=0.01)
    assert knowledge.speeds.token_bytes == 1 << 20
    before = knowledge.speeds
    knowledge.evaluated(10, 5.0)
    knowledge.moved(save=True, size=100, tokens=0, seconds=1.0)
    assert knowledge.speeds == before


def test_a_model_that_never_uses_a_restore_is_given_up() -> None:
    """Rule 6: two worthless restores and no good one (sliding windows of older builds); one good one is enough."""
    hopeless, mixed = Knowledge(), Knowledge()
    for knowledge in (hopeless, mixed):
        knowledge.tried("templates", good=False, now=5.0)
    after_one = hopeless.answer("templates", 0.0)
    mixed.tried("templates", good=True, now=5.0)
    for knowledge in (hopeless, mixed):
        knowledge.tried("templates", good=False, now=5.0)
    found = [one.answer("templates", 0.0) for one in (hopeless, mixed)]
    assert (after_one, found) == ("unknown", ["worthless", "good"])
    assert hopeless.answer("templates", 6.0) == "unknown"


def test_a_model_whose_cache_can_be_cut_anywhere_is_not_judged_by_one_estimate() -> None:
    """How much two prompts share is an estimate, and a chat template may print what both have elsewhere."""
    knowledge = Knowledge(build="b1")
    for answer in ("unknown", "unknown", "worthless"):
        knowledge.tried("diverges", good=False, now=5.0)
        assert knowledge.answer("diverges", 0.0) == "worthless"
        assert knowledge.answer("diverges", 0.0, cuttable=True) == answer


def test_each_question_has_its_own_answer() -> None:
    """Rules 6 and 19: what brought nothing when it was repeated or left early can still be gone on from."""
    knowledge = Knowledge()
    questions: tuple[Question, ...] = ("templates", "extends", "repeats", "diverges")
    knowledge.tried("repeats", good=False, now=5.0)
    assert [knowledge.answer(one, 0.0) for one in questions] == ["unknown", "unknown", "worthless", "unknown"]
    knowledge.tried("diverges", good=False, now=5.0)
    knowledge.tried("extends", good=True, now=5.0)
    assert [knowledge.answer(one, 0.0) for one in questions] == ["unknown", "good", "worthless", "worthless"]
    knowledge.tried("diverges", good=True, now=6.0)
    assert knowledge.answer("diverges", 0.0) == "good"


def test_what_sometimes_works_is_given_up_after_three_failures_in_a_row() -> None:
    """A hybrid model with checkpoints can be cut at some places only."""
    knowledge = Knowledge()
    knowledge.tried("diverges", good=True, now=1.0)
    found = []
    for now in (2.0, 3.0, 4.0):
        knowledge.tried("diverges", good=False, now=now)
        found.append(knowledge.answer("diverges", 0.0))
    assert found == ["good", "good", "worthless"]


def test_another_build_is_judged_anew() -> None:
    """Speeds stay, verdicts do not."""
    old = Knowledge(build="b1", refused=("b0",))
    old.evaluated(1000, 10.0)
    old.tried("diverges", good=False, now=5.0)
    new = old.upgraded("b2")
    assert (new.build, new.trials, new.refused) == ("b2", {}, ())
    assert new.speeds == old.speeds
    assert old.upgraded("b1") is old


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_is_told_once_and_ends_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    """One warning, one event for its beginning and one for its end; tries in between further and further apart."""
    bus, clock = Bus(), Clock()
    heard: list[SavingPaused] = []
    bus.subscribe(SavingPaused, heard.append)
    tenant = Tenant(config=Kv(), bus=bus)
    tenant.path = Path("/slots")
    pause = Pause(tenant, clock, model="qwen", first_retry=10.0)
    due = [pause.due]
    with caplog.at_level(logging.WARNING):
        for now in (0.0, 10.0):
            clock.now = now
            pause.enter("min_free", "the disk is full")
            for later in (9.0, 10.0, 20.0):
                clock.now = now + later
                due.append(pause.due)
    assert due == [True, False, True, True, False, False, True]
    assert [record.getMessage() for record in caplog.records] == ["qwen: saving snapshots is paused: the disk is full"]
    pause.leave(proved=True)
    assert not pause
    assert [(event.paused, event.kind) for event in heard] == [(True, "min_free"), (False, "min_free")]
    assert {(event.model, event.folder) for event in heard} == {("qwen", str(Path("/slots")))}


def test_only_those_who_wait_for_this_disk_hear_that_it_is_well() -> None:
    """Two models share a bus and not their disks: when one saves again, the warm-up of the other is left alone."""
    bus, told = Bus(), list[str]()
    first, second = (Pause(Tenant(config=Kv(), bus=bus), Clock(), model=name) for name in ("a", "b"))
    first.watchers.add(lambda: told.append(f"a {bool(first)}"))
    second.watchers.add(lambda: told.append("b"))
    first.enter("disk", "full")
    second.enter("disk", "full")
    first.leave(proved=False)
    assert told == ["a False"]


def test_trouble_is_news_again_after_a_save_that_worked(caplog: pytest.LogCaptureFixture) -> None:
    """A pause that was only hoped to be over does not repeat its warning; one after a real success does."""
    pause = Pause(Tenant(config=Kv(), bus=Bus()), Clock())
    with caplog.at_level(logging.WARNING):
        pause.enter("engine", "500")
        pause.leave(proved=False)
        pause.enter("engine", "500")
        assert len(caplog.records) == 1
        pause.leave(proved=True)
        pause.enter("engine", "500")
        assert len(caplog.records) == 2


def probe(token: int, *logprobs: tuple[int, float]) -> Probe:
    return Probe(token, logprobs)


@pytest.mark.parametrize(
    ("restored", "cold", "same"),
    [
        (probe(7, (7, -0.5), (8, -2.0)), probe(7, (7, -0.51), (8, -1.95)), True),
        (probe(7, (7, -0.5), (8, -2.0)), probe(7, (7, -0.5), (8, -1.5)), False),
        (probe(7, (7, -0.70), (8, -0.71)), probe(8, (8, -0.70), (7, -0.72)), True),
        (probe(9, (9, -0.1)), probe(7, (7, -0.1), (9, -3.0)), False),
        (probe(9, (9, -0.1)), probe(7, (7, -0.1)), False),
    ],
)
def test_a_build_must_say_what_a_cold_start_says(restored: Probe, cold: Probe, *, same: bool) -> None:
    """Rule 2: the same next token and log-probabilities, up to rounding."""
    assert same_answer(restored, cold) is same


def test_another_process_is_not_paused_for_the_one_before() -> None:
    """A time-out or an overwritten model file was that process's; a full disk is still full."""
    pause = Pause(Tenant(config=Kv(), bus=Bus()), Clock())
    left = []
    for kind in ("timeout", "model", "min_free"):
        pause.enter(kind, "why")
        pause.renewed()
        left.append(pause.kind)
    assert left == ["", "", "min_free"]
