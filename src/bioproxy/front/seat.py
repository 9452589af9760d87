"""Where a request waits until the process behind it is there, and what it says about it afterwards.

One engine needs no seats: it is there, or the gate is closed. Of many models each has its process started, kept and
stopped by the supervisor, and a request holds it in its place from before the gate until its last byte. The way of a
request (inference.py, passthrough.py) is the same with both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from bioproxy.errors import BioproxyError, EngineUnavailable
from bioproxy.front.engine import Engine
from bioproxy.front.exchange import Exchange
from bioproxy.models.holds import Hold
from bioproxy.models.supervisor import Supervisor

TOOL_CALLS = (b'"finish_reason":"tool_calls"', b'"finish_reason": "tool_calls"', b'"tool_use"')

SWAP_PARTS = ("stop", "save", "start", "restore")  # of events.SwapEnded
SWAP_NAMES = {"restore": "swap_restore"}  # a restore under the request's own grant is another one


class Recalled(Exception):
    """It only waited in the gate of its model, which has to go for somebody else first: it waits for the model anew."""


class Seat(Protocol):
    """A request's place at an engine. `take`… `leave`, as often as it is tried."""

    @property
    def engine(self) -> Engine:
        """The engine that `take` waited for: not always the one of before, a reload may have changed its model."""

    async def take(self, want: object) -> None:
        """Wait until the engine's process is there, with what `want` names in its cache if that pays."""

    def gated(self, task: asyncio.Task[object] | None) -> None:
        """`task` waits in the engine's gate from now on; None: no more."""

    def taken_back(self) -> bool:
        """Whether the cancellation that just arrived was the supervisor's: then `take` again."""

    def leave(self) -> None:
        """Done, or given up, with this try."""

    def timing(self) -> bytes:
        """What `Server-Timing` says of the wait for the process; begins with a comma, empty where there was none."""

    async def lost(self, error: BioproxyError, attempt: int) -> bool:
        """The engine was lost before it answered anything; whether try number `attempt` + 1 makes sense."""


TIMED_OUT = 504
ATTEMPTS = 3  # of a request that an engine of ours lost before its first byte


class Only:
    """The place at the one engine that there is."""

    __slots__ = ("engine",)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def take(self, want: object) -> None:
        """It is there, or its gate is closed."""

    def gated(self, task: asyncio.Task[object] | None) -> None:
        """Nobody takes it back."""

    def taken_back(self) -> bool:
        """Never."""
        return False

    def leave(self) -> None:
        """Nothing was taken."""

    def timing(self) -> bytes:
        """Nothing was waited for."""
        return b""

    async def lost(self, error: BioproxyError, attempt: int) -> bool:
        """Have the engine looked at; one of ours will be back."""
        self.engine.attachment.suspect(error.message)
        return self.engine.owned and attempt < ATTEMPTS


class OfModel:
    """A place at one of many models. `loading` is called when it has to be waited for; what it returns, at the end."""

    __slots__ = ("exchange", "hold", "loading", "model", "supervisor", "timeout")

    def __init__(
        self,
        supervisor: Supervisor,
        model: str,
        exchange: Exchange,
        *,
        timeout: float,
        loading: Callable[[], Callable[[bool], None]] | None = None,
    ) -> None:
        self.supervisor = supervisor
        self.model = model
        self.exchange = exchange
        self.timeout = timeout
        self.loading = loading
        self.hold: Hold | None = None

    @property
    def engine(self) -> Engine:
        """The engine whose process is held."""
        assert self.hold is not None
        assert self.hold.unit is not None
        return cast("Engine", self.hold.unit.equipment.engine)

    async def take(self, want: object) -> None:
        """Wait for the model; the time counts as `swap`. What is refused at once is refused before anything is sent."""
        again = self.hold is not None and self.hold.recalled
        if not again:
            self.leave()
            self.hold = self.supervisor.enter(self.model, key=want)
            if self.hold.future is None:
                return  # it is ready
        assert self.hold is not None
        stop = self.loading() if self.loading is not None else None
        started, ready = asyncio.get_running_loop().time(), False
        try:
            if again:
                await self.supervisor.again(self.hold, timeout=self.timeout)
            else:
                await self.supervisor.wait(self.hold, self.timeout)
            ready = True
        finally:
            self.exchange.record.swap += asyncio.get_running_loop().time() - started
            if stop is not None:
                stop(ready)

    def gated(self, task: asyncio.Task[object] | None) -> None:
        """Tell the supervisor whom to cancel where it takes the place back."""
        if self.hold is not None:
            self.hold.in_gate = task

    def taken_back(self) -> bool:
        """Whether this task was cancelled by the supervisor and by nobody else."""
        task = asyncio.current_task()
        return self.hold is not None and self.hold.recalled and task is not None and task.uncancel() == 0

    def timing(self) -> bytes:
        """The wait, and where it went if it was for a swap, in milliseconds."""
        waited = self.exchange.record.swap
        if not waited:
            return b""
        swap = self.supervisor.swapped.get(self.model)
        parts = (("swap", waited), *((name, getattr(swap, name)) for name in SWAP_PARTS if swap is not None))
        return b"".join(b", %b;dur=%.1f" % (SWAP_NAMES.get(name, name).encode(), value * 1e3) for name, value in parts)

    def leave(self) -> None:
        """Give the place back."""
        if self.hold is not None:
            tail = self.exchange.tail.last() if self.exchange.tail.total else b""
            self.hold.release(tool_calls=any(mark in tail for mark in TOOL_CALLS))
            self.hold = None

    async def lost(self, error: BioproxyError, attempt: int) -> bool:
        """Once more, with the model's next process if this one is gone; not where we stopped it ourselves.

        Nor after a time-out: the engine may be at it still, and the client has waited long enough.
        """
        if error.status == TIMED_OUT:
            return False
        await self.supervisor.confirm(self.model)
        return attempt == 1 and self.hold is not None and not self.hold.cut


async def seated(exchange: Exchange, seat: Seat, work: Callable[[Engine], Awaitable[object]]) -> None:
    """Do `work` on a seat; once more where the engine was lost before it answered anything."""
    lost = 0
    try:
        while True:
            try:
                await seat.take(None)
                await work(seat.engine)
            except Recalled:
                continue
            except EngineUnavailable as error:
                lost += 1
                if exchange.responder.started or not await seat.lost(error, lost):
                    raise
            else:
                return
    finally:
        seat.leave()
