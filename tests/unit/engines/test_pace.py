"""One answer for everybody who asks within the period (kv-rule 5)."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy.engines.pace import Look, Pace
from bioproxy.errors import EngineUnavailable

SHORT = 0.05
LONG = 60.0


class Asked:
    """An engine that counts questions, answers when `go` is set, and fails when told to."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []
        self.times: list[float] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, target: bytes) -> Look:
        """One question."""
        now = asyncio.get_running_loop().time()
        self.targets.append(target)
        self.times.append(now)
        self.begun.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return Look(200, [], b"%d" % len(self.targets), asyncio.get_running_loop().time())


async def test_answer_is_shared_for_the_period() -> None:
    """Ten questions within the period reach the engine once."""
    asked = Asked()
    pace = Pace(asked, period=LONG)
    answers = [(await pace.get(b"/slots")).body for _ in range(10)]
    assert answers == [b"1"] * 10
    assert len(asked.targets) == 1


async def test_question_under_way_is_shared() -> None:
    """Who asks while the same question is under way waits for its answer."""
    asked = Asked()
    asked.go.clear()
    pace = Pace(asked, period=LONG)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pace.get(b"/slots")) for _ in range(5)]
        await asked.begun.wait()
        asked.go.set()
    assert {task.result().body for task in tasks} == {b"1"}
    assert len(asked.targets) == 1


async def test_both_routes_share_the_pace() -> None:
    """/metrics after /slots waits for its turn: to the engine they are the same disturbance."""
    asked = Asked()
    pace = Pace(asked, period=SHORT)
    await pace.get(b"/slots")
    await pace.get(b"/metrics")
    assert asked.targets == [b"/slots", b"/metrics"]
    assert asked.times[1] - asked.times[0] >= SHORT


async def test_new_answer_after_the_period() -> None:
    """An answer that is older than the period is not given again."""
    asked = Asked()
    pace = Pace(asked, period=0)
    await pace.get(b"/slots")
    assert (await pace.get(b"/slots")).body == b"2"


async def test_a_cancelled_caller_takes_nothing_away() -> None:
    """One caller leaves; the others get the answer of the same question."""
    asked = Asked()
    asked.go.clear()
    pace = Pace(asked, period=LONG)
    async with asyncio.TaskGroup() as group:
        stays, leaves = group.create_task(pace.get(b"/slots")), group.create_task(pace.get(b"/slots"))
        await asked.begun.wait()
        leaves.cancel()
        asked.go.set()
    assert leaves.cancelled()
    assert stays.result().body == b"1"


async def test_failure_is_told_and_not_kept() -> None:
    """Who waited hears the failure; the next question is a new one, at the same pace."""
    asked = Asked()
    asked.error = EngineUnavailable("nothing answers")
    pace = Pace(asked, period=SHORT)
    with pytest.raises(EngineUnavailable):
        await pace.get(b"/slots")
    asked.error = None
    assert (await pace.get(b"/slots")).body == b"2"
    assert asked.times[1] - asked.times[0] >= SHORT


async def test_forget() -> None:
    """Another engine's answers are not given."""
    asked = Asked()
    pace = Pace(asked, period=SHORT)
    await pace.get(b"/slots")
    pace.forget()
    assert (await pace.get(b"/slots")).body == b"2"


async def test_another_process_is_asked_at_once() -> None:
    """The pace protects one process; its successor was not asked anything yet."""
    asked = Asked()
    pace = Pace(asked, period=LONG)
    await pace.get(b"/slots")
    pace.renew()
    assert (await pace.get(b"/slots")).body == b"2"


async def test_close_ends_what_is_under_way() -> None:
    """No task outlives the client."""
    asked = Asked()
    asked.go.clear()
    pace = Pace(asked, period=LONG)
    async with asyncio.TaskGroup() as group:
        caller = group.create_task(expect_cancelled(pace))
        await asked.begun.wait()
        await pace.close()
        await caller
    assert not pace.flying


async def expect_cancelled(pace: Pace) -> None:
    """A caller whose question is ended under it."""
    with pytest.raises(asyncio.CancelledError):
        await pace.get(b"/slots")
