"""What must not happen unseen: something left behind, a cancellation in the wrong place, a system that gives no more.

`tasks`, `owned` and `open_files` count what a fault may leave behind. A cancellation can land wherever a
coroutine gives the loop a turn: `cut` counts those places and cancels the task in the one that is asked for, and
`each_await` goes through all of them. The last functions take away what the system allows a process, for a while.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from bioproxy import aio
from bioproxy.app import App
from bioproxy.front.exchange import Exchange
from bioproxy.wire.http1.message import Request
from support.apps import station


def open_files() -> int:
    """Open file descriptors of this process; on Windows handles of any kind."""
    if sys.platform == "win32":
        return int(psutil.Process().num_handles())
    return len(list(Path("/dev/fd").iterdir()))


async def until(condition: Callable[[], object], *, seconds: float = 30.0) -> None:
    """Wait until `condition()` is true, looking every few milliseconds; TimeoutError when it never is."""

    async def look() -> bool | None:
        return True if condition() else None

    if await aio.poll(look, interval=0.01, deadline=seconds) is None:
        raise TimeoutError(f"did not come true within {seconds} s")


async def assert_nothing_held(app: App) -> None:
    """No grant, no waiter, no request under way; connections may be open."""

    def free() -> bool:
        now = owned(app)
        return not (now["grants"] or now["waiters"] or now["handlers"])

    await until(free)


PASSING = re.compile(r"wait_first|shielded clean-up|Task-\d+|commit .*")  # come and go with a service's every breath


def tasks() -> Counter[str]:
    """The tasks of this loop by name, without those that end by themselves within milliseconds."""
    names = (task.get_name() for task in asyncio.all_tasks() if not task.done())
    return Counter(name for name in names if not PASSING.fullmatch(name))


def owned(app: App) -> dict[str, int]:
    """What requests own while they are under way, by kind: all of it is 0 when none is."""
    gate, pool = station(app).gate.statistics(), station(app).pool.statistics()
    servers = (app.ports.proxy.statistics(), app.ports.admin.statistics())
    return {
        "grants": sum(gate.running.values()),
        "waiters": sum(gate.waiting.values()),
        "handlers": app.ports.proxy.statistics().running,
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

    def as_before() -> bool:
        return quiet(app) and not tasks() - before and open_files() <= files

    with no_request_is_garbage():
        yield
        try:
            await until(as_before)
        except TimeoutError:
            raise AssertionError(
                f"left over: {owned(app)}, tasks {tasks() - before}, files {files} → {open_files()}"
            ) from None


@contextmanager
def no_request_is_garbage() -> Iterator[None]:
    """No request that ended in the block is held by a cycle; all of them must be over by its end.

    A request, with its body of perhaps a megabyte, has to go at once. What is in a cycle waits for a collector, which
    looks the less often the less is made. Errors make cycles: they hold the frames that they went through, and those
    hold all of a request; so nothing that such a frame knows may hold the error.
    """
    gc.freeze()  # what is there already is not looked at: there is a million of it
    gc.disable()
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kept = [repr(one) for one in gc.garbage if isinstance(one, Exchange | Request)]
        errors = [repr(one) for one in gc.garbage if kept and isinstance(one, BaseException)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()
    assert not kept, f"left to the garbage collector: {kept}, with {errors}"


MOST_AWAITS = 60  # of one coroutine that is cancelled at each of them


class CancelAt:
    """Awaits `work`; the running task is cancelled when `work` gives up control for the `at`-th time (0 is first)."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int) -> None:
        self.work = work
        self.at = at

    def __await__(self) -> Generator[Any, Any, Any]:
        """The coroutine's own steps, and the cancellation between two of them."""
        steps = self.work.__await__()
        count = 0
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                waits_for = steps.throw(error) if error is not None else steps.send(answer)
            except StopIteration as done:
                return done.value
            if count == self.at:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            count += 1
            answer, error = None, None
            try:
                answer = yield waits_for
            except BaseException as caught:
                error = caught


async def cut(work: Coroutine[Any, Any, Any], at: int) -> bool:
    """Run `work`, cancelled at its `at`-th await; False if it came to its end before. Its own errors are raised."""

    async def run() -> None:
        await CancelAt(work, at)

    task = aio.spawn(run(), name=f"cut at {at}")
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False


async def each_await(make: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[int]:
    """Yields after each time that a new `make()` was cancelled one await later, until one came to its end."""
    for at in range(MOST_AWAITS):
        was_cut = await cut(make(), at)
        yield at
        if not was_cut:
            return
    raise AssertionError(f"it does not come to its end within {MOST_AWAITS} awaits")


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing of this process gets a byte onto any disk, as if all were full; names can be made."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_files_left() -> Iterator[None]:
    """Nothing can be opened inside the block; what is open stays."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
