"""Task helpers: what ends, ends."""

from __future__ import annotations

import asyncio

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
