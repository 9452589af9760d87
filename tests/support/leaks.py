"""Counts what a fault may leave behind: tasks, file handles, grants, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy.app import App


class Held(msgspec.Struct, frozen=True):
    """What the program holds at one moment."""

    tasks: frozenset[str]
    grants: int
    waiting: int
    running: int


def held(app: App) -> Held:
    """Everything that must be back to where it was after a fault."""
    gate = app.gate.statistics()
    names = frozenset(
        task.get_name() for task in asyncio.all_tasks() if not task.done() and task is not asyncio.current_task()
    )
    return Held(
        tasks=names,
        grants=sum(gate.running.values()),
        waiting=sum(gate.waiting.values()),
        running=app.front.running,
    )


def open_files() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Wait until `condition()` is true, looking every few milliseconds; TimeoutError when it never is."""

    async def look() -> bool | None:
        return True if condition() else None

    if await aio.poll(look, interval=0.005, deadline=seconds) is None:
        raise TimeoutError(f"did not come true within {seconds} s")


async def assert_nothing_held(app: App) -> None:
    """No grant, no waiter, no request under way: what every fault test ends with."""

    def free() -> bool:
        now = held(app)
        return not (now.grants or now.waiting or now.running)

    await until(free)
