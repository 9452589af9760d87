"""Task helpers: every background task has a name, an owner and an end.

`asyncio.create_task` alone loses tasks to the garbage collector and swallows their exceptions; the linter bans it
(TID251). Here are the few shapes that replace it: `spawn` for a task that its caller holds, `guarded` for a service
that must outlive its own faults, `finish` to end tasks for good, `end_step` for one of the steps in which a program
ends, `poll` to look at the outside world.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


def spawn(work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start `work` as a task named `name`. The caller holds it and ends it with `finish`."""
    return asyncio.get_running_loop().create_task(work, name=name)


async def finish(tasks: Iterable[asyncio.Task[Any]], *, deadline: float = 5.0) -> None:
    """Cancel `tasks` and wait until each has really ended, `deadline` seconds at most.

    Shielded against a cancellation of the caller: a clean-up that is cut short would leak what it cleans up.
    Exceptions of the tasks are logged, because no one awaits their results.
    """
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if not pending:
        return
    _, late = await shielded(asyncio.wait(pending, timeout=deadline))
    for task in pending:
        if task in late:
            log.error("task %s did not end within %.0f s of being cancelled", task.get_name(), deadline)
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed while it ended: %r", task.get_name(), error)


class Threads(ThreadPoolExecutor):
    """An event loop's threads for calls that block. Unlike the library's, they are not waited for at the end.

    A thread that hangs in a call to a dead network folder cannot be ended. The library's own threads are joined when
    the loop is closed, and once more when the interpreter ends, so one of them would keep the program for ever.
    """

    def __init__(self, most: int = 32) -> None:
        super().__init__(max_workers=most)  # starts none: `submit` is ours
        self.most = most
        self.started = 0
        self.idle = threading.Semaphore(0)
        self.work: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.ended = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a thread call `fn`; one that is idle, else a new one, else the next that becomes idle."""
        if self.ended:
            raise RuntimeError("these threads were shut down")
        future: Future[T] = Future()
        self.work.put((future, partial(fn, *args, **kwargs)))
        if not self.idle.acquire(blocking=False) and self.started < self.most:
            self.started += 1
            threading.Thread(target=self.run, name=f"blocking-{self.started}", daemon=True).start()
        return future

    def run(self) -> None:
        while (work := self.work.get()) is not None:
            future, call = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del work, future, call  # an idle thread keeps nothing alive
            self.idle.release()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - as the library has it
        """Take nothing on any more; threads end after what was asked of them, and whether they do is not waited for."""
        self.ended = True
        for _ in range(self.started):
            self.work.put(None)


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end even when the caller is cancelled, and only then let the cancellation go on.

    However often that happens: a client that leaves cancels twice, when its connection is cut and when it is lost.
    """
    task = spawn(work, name="shielded clean-up")
    cancelled: tuple[object, ...] | None = None  # with which words; an error in here would keep this frame
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error.args
    if cancelled is None:
        try:
            return task.result()
        finally:
            del task  # an error in it keeps this frame
    if not task.cancelled() and (fault := task.exception()) is not None:
        log.error("%s failed while its caller was cancelled: %r", task.get_name(), fault)
    raise asyncio.CancelledError(*cancelled)


async def guarded(
    service: Callable[[], Awaitable[None]],
    *,
    name: str,
    on_fault: Callable[[str, Exception], None] | None = None,
    first_delay: float = 0.5,
    longest_delay: float = 30.0,
) -> None:
    """Run `service` until it returns; a fault is logged and given to `on_fault`, and it starts again with back-off.

    A fault in a warm-up must not cut streams: in a plain TaskGroup one exception would cancel every neighbour.
    """
    delay = first_delay
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await service()
        except Exception as error:
            log.exception("%s failed and starts again in %.1f s", name, delay)
            if on_fault is not None:
                on_fault(name, error)
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a TaskGroup prefers its tasks' faults to our cancellation
                raise asyncio.CancelledError from error
        else:
            return
        await asyncio.sleep(delay)
        lived = asyncio.get_running_loop().time() - started
        delay = first_delay if lived > 2 * longest_delay else min(delay * 2, longest_delay)


async def wait_first(event: asyncio.Event, *, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - a bound, not a scope
    """Wait until `event` is set; False when `timeout` seconds passed first."""
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def end_step(step: Callable[[], Coroutine[Any, Any, object]], *, name: str, seconds: float) -> None:
    """One step of an orderly end, `seconds` at most. However it goes, the next one can follow: its fault is logged."""
    task = spawn(step(), name=name)
    try:
        _, late = await asyncio.wait([task], timeout=seconds)
        if late:
            log.error("%s takes longer than %.0f s and is given up", name, seconds)
    finally:
        await finish([task])
    if not task.cancelled() and task.done() and (error := task.exception()) is not None:
        log.error("%s failed", name, exc_info=error)


async def poll(
    look: Callable[[], Awaitable[T | None]],
    *,
    interval: float,
    deadline: float | None = None,
    jitter: float = 0.1,
    moot: asyncio.Event | None = None,
) -> T | None:
    """Look at the outside world every `interval` seconds until `look` returns something; None when time is up.

    `moot` ends it early (returns None). `jitter` is a share of the interval, so that many pollers do not beat in time.
    """
    loop = asyncio.get_running_loop()
    end = None if deadline is None else loop.time() + deadline
    moot = moot or asyncio.Event()
    while not moot.is_set():
        found = await look()
        if found is not None:
            return found
        pause = interval * (1 + jitter * (2 * random.random() - 1))  # noqa: S311 - no secret hangs on it
        if end is not None:
            if loop.time() >= end:
                return None
            pause = min(pause, max(0.0, end - loop.time()))
        await wait_first(moot, timeout=pause)
    return None
