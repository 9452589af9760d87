"""Questions that an engine must not be asked often: one answer for all who ask, for two seconds.

llama-server notices that a client left only when, for a second, no result of any request came by. An answer to
`GET /slots` or `GET /metrics` is such a result: asked ten times a second, cancellation never happens; once in two
seconds is harmless (facts, 0.7; kv-rule 5). So all who ask (clients through us, the stall detection, the keeper) share
the last answer, and the two routes share the pace.

A question runs in a task of its own: a caller who is cancelled must not take the answer away from those who wait for
the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from bioproxy import aio

PERIOD = 2.0


class Look(msgspec.Struct, frozen=True):
    """An engine's answer to one question, and when it came (loop time)."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    at: float


class Pace:
    """Asks `ask(target)` at most once in `period` seconds, whatever the targets; an answer is good for as long.

    What `ask` raises, everyone hears who waited for that question.
    """

    def __init__(self, ask: Callable[[bytes], Awaitable[Look]], *, period: float = PERIOD) -> None:
        self.ask, self.period = ask, period
        self.answers: dict[bytes, Look] = {}
        self.flying: dict[bytes, asyncio.Task[Look]] = {}
        self.next_at = float("-inf")

    async def get(self, target: bytes) -> Look:
        """The answer to `GET target`: the last one while it is good, else a new one as soon as the pace allows."""
        kept = self.answers.get(target)
        if kept is not None and asyncio.get_running_loop().time() - kept.at < self.period:
            return kept
        if target not in self.flying:
            self.flying[target] = aio.spawn(self.fly(target), name=f"look at {target.decode('latin-1')}")
            self.flying[target].add_done_callback(lambda done: self.landed(target, done))
        return await asyncio.shield(self.flying[target])

    async def fly(self, target: bytes) -> Look:
        """Wait for this question's turn, then ask."""
        loop = asyncio.get_running_loop()
        turn = max(loop.time(), self.next_at)
        self.next_at = turn + self.period
        if turn > loop.time():
            await asyncio.sleep(turn - loop.time())
        try:
            return await self.ask(target)
        finally:
            # the pace counts from the answer: a slow engine must not get the next question at once
            self.next_at = max(self.next_at, loop.time() + self.period)

    def landed(self, target: bytes, task: asyncio.Task[Look]) -> None:
        """Keep the answer; what went wrong was told to those who waited."""
        del self.flying[target]
        if not task.cancelled() and task.exception() is None:
            self.answers[target] = task.result()

    def forget(self) -> None:
        """Forget all answers: the engine is another one."""
        self.answers.clear()

    def renew(self) -> None:
        """Another process answers now: it was not asked anything yet, so the next question need not wait."""
        self.forget()
        self.next_at = float("-inf")

    async def close(self) -> None:
        """End the questions that are under way."""
        await aio.finish(list(self.flying.values()))
