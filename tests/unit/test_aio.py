"""Task helpers: what ends, ends."""

from __future__ import annotations

import asyncio

import pytest

from bioproxy import aio


async def test_a_service_that_fails_while_it_is_cancelled_does_not_start_again() -> None:
    """A TaskGroup prefers its tasks' faults to a cancellation from outside, which would be lost."""
    begun, fail = asyncio.Event(), asyncio.Event()
    starts: list[str] = []

    async def part() -> None:
        begun.set()
        await fail.wait()
        raise RuntimeError("refused")

    async def service() -> None:
        starts.append("start")
        async with asyncio.TaskGroup() as group:
            group.create_task(part())

    task = aio.spawn(aio.guarded(service, name="service", first_delay=0), name="guard")
    await begun.wait()
    fail.set()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert starts == ["start"]


async def test_a_service_that_fails_starts_again() -> None:
    """And its fault is told."""
    told: list[str] = []

    async def service() -> None:
        if not told:
            raise RuntimeError("once")

    await aio.guarded(service, name="service", on_fault=lambda name, _: told.append(name), first_delay=0)
    assert told == ["service"]


async def test_an_event_is_waited_for_without_a_task_of_its_own() -> None:
    """So none is left, whether it comes, time is up, or whoever waits is cancelled."""
    event = asyncio.Event()
    assert not await aio.wait_first(event, timeout=0)
    task = aio.spawn(aio.wait_first(event), name="waits")
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 2
    task.cancel()
    await asyncio.wait([task])
    event.set()
    assert await aio.wait_first(event, timeout=0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_step_of_an_end_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """One that fails is told, one that takes too long is cancelled, and a cancellation of the whole ends it, too."""
    ended: list[str] = []

    async def fails() -> None:
        raise RuntimeError("no")

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("hangs")

    await aio.end_step(fails, name="the first step", seconds=1)
    await aio.end_step(hangs, name="the second step", seconds=0)
    assert ended == ["hangs"]
    assert [one.getMessage() for one in caplog.records] == [
        "the first step failed",
        "the second step takes longer than 0 s and is given up",
    ]
    task = aio.spawn(aio.end_step(hangs, name="the third step", seconds=60), name="end")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == ["hangs", "hangs"]
