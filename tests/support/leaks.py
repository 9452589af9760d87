"""Counts what a fault may leave behind: tasks, file handles, grants, connections."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from bioproxy import aio
from bioproxy.app import App
from support.apps import station


class Held(msgspec.Struct, frozen=True):
    """What the program holds at one moment."""

    tasks: frozenset[str]
    grants: int
    waiting: int
    running: int


def held(app: App) -> Held:
    """Everything that must be back to where it was after a fault."""
    gate = station(app).gate.statistics()
    names = frozenset(
        task.get_name() for task in asyncio.all_tasks() if not task.done() and task is not asyncio.current_task()
    )
    return Held(
        tasks=names,
        grants=sum(gate.running.values()),
        waiting=sum(gate.waiting.values()),
        running=app.proxy_server.statistics().running,
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


PASSING = re.compile(r"wait_first|shielded clean-up|Task-\d+|commit .*")  # come and go with a service's every breath


def tasks() -> Counter[str]:
    """The tasks of this loop by name, without those that end by themselves within milliseconds."""
    names = (task.get_name() for task in asyncio.all_tasks() if not task.done())
    return Counter(name for name in names if not PASSING.fullmatch(name))


def owned(app: App) -> dict[str, int]:
    """What requests own while they are under way, by kind: all of it is 0 when none is."""
    gate, pool = station(app).gate.statistics(), station(app).pool.statistics()
    servers = (app.proxy_server.statistics(), app.admin_server.statistics())
    return {
        "grants": sum(gate.running.values()),
        "waiters": sum(gate.waiting.values()),
        "handlers": app.proxy_server.statistics().running,
        "requests": sum(server.running for server in servers),
        "connections of clients": sum(server.connections for server in servers),
        "connections to the engine": pool.active,
        "watched requests": station(app).attachment.statistics().stall.watched,
    }


def quiet(app: App) -> bool:
    """Whether no request owns anything and no connection to the engine is open; closes those that are idle."""
    was_open = station(app).pool.statistics().open
    station(app).pool.drop_idle()
    return not was_open and not any(owned(app).values())


@asynccontextmanager
async def nothing_leaked(app: App) -> AsyncIterator[None]:
    """Whatever happens in the block: afterwards no request owns anything, no task is new, no file handle is open.

    Idle connections to the engine are closed before each count; only those that nobody uses any more are idle.
    """
    await until(
        lambda: station(app).attachment.looks and "warm-up works" in tasks()
    )  # the services' own tasks are there
    await until(lambda: quiet(app))
    before, files = tasks(), open_files()
    yield

    def as_before() -> bool:
        return quiet(app) and not tasks() - before and open_files() <= files

    try:
        await until(as_before, seconds=5)
    except TimeoutError:
        raise AssertionError(
            f"left over: {owned(app)}, tasks {tasks() - before}, files {files} → {open_files()}"
        ) from None
