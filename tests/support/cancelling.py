"""Cancels a coroutine at its first, second, third … await, so that a test can look at each of them.

A cancellation can land wherever a coroutine gives the loop a turn. `cut` counts those places and cancels the task in
the one that is asked for; a coroutine that gets further than that is not touched. `each_await` goes through all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from typing import Any

from bioproxy import aio


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
    """Run `work`, cancelled at its `at`-th await; False where it came to its end before. Its own errors are raised."""

    async def run() -> None:
        await CancelAt(work, at)

    task = aio.spawn(run(), name=f"cut at {at}")
    await asyncio.wait([task])
    if task.cancelled():
        return True
    task.result()
    return False


async def each_await(make: Callable[[], Coroutine[Any, Any, Any]], *, most: int = 60) -> AsyncIterator[int]:
    """Yields after each time that a new `make()` was cancelled one await later, until one came to its end."""
    for at in range(most):
        was_cut = await cut(make(), at)
        yield at
        if not was_cut:
            return
    raise AssertionError(f"it does not come to its end within {most} awaits")
