"""Where a request waits until the process behind it is there, and what it says about it afterwards.

One engine needs no seats: it is there, or the gate is closed. Of many models each has its process started, kept and
stopped by the supervisor, and a request holds it in its place from before the gate until its last byte. The way of a
request (inference.py, passthrough.py) is the same with both.

**What a process died of is never sent to another one.** A prompt that kills the engine would kill the next one too, and
everybody would wait for two loads. So a request goes again only if none of it was sent, if the process that had it
lives (it only broke the connection), or if we ended that process ourselves for a reload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from bioproxy.activity import Record
from bioproxy.engines.process import Exit, how
from bioproxy.errors import BioproxyError, EngineDied, EngineUnavailable
from bioproxy.front.exchange import Exchange
from bioproxy.models.holds import Hold
from bioproxy.models.supervisor import Supervisor
from bioproxy.models.ticket import Ticket
from bioproxy.models.waits import between
from bioproxy.station import Station

ALWAYS_TOLD = ("stop", "save", "start", "restore")  # parts of a swap, told even if they took no time
SWAP_NAMES = {"restore": "swap_restore"}  # a restore under the request's own grant is another one
TOOL_CALLS = (b'"finish_reason":"tool_calls"', b'"finish_reason": "tool_calls"', b'"tool_use"')


class Recalled(Exception):
    """It only waited in the gate of its model, which has to go for somebody else first: it waits for the model anew."""


class Seat(Protocol):
    """A request's place at an engine. `take`… `leave`, as often as it is tried."""

    @property
    def engine(self) -> Station:
        """The engine that `take` waited for: not always the one of before, a reload may have changed its model."""

    async def take(self, want: object) -> None:
        """Wait until the engine's process is there, with what `want` names in its cache if that pays."""

    def gated(self, task: asyncio.Task[object] | None) -> None:
        """`task` waits in the engine's gate from now on; None: no more."""

    def sending(self) -> None:
        """The request is about to go out; EngineDied if a process that had it before has died by itself."""

    def taken_back(self) -> bool:
        """Whether the cancellation that just arrived was the supervisor's: then `take` again."""

    def leave(self) -> None:
        """Done, or given up, with this try."""

    def timing(self) -> bytes:
        """What `Server-Timing` says of the wait for the process; begins with a comma, empty where there was none."""

    async def broke_off(self, error: BioproxyError) -> None:
        """The engine was lost before the end of its answer: let the news of its process's end arrive.

        Under the grant, if there is one: nobody else shall be let at an engine that is about to be gone.
        """

    def lost(self, error: EngineUnavailable, attempt: int) -> bool:
        """Whether try number `attempt` + 1 makes sense. EngineDied if the engine died by itself and had the request."""


TIMED_OUT = 504  # the engine may be at it still, and the client has waited long enough
ATTEMPTS = 3  # of a request that an engine of ours lost before its first byte
RESTARTED = "reload"  # why we stop a process that is back at once
NOTHING = 1e-6  # seconds: what rounding leaves
NEWS = 0.25  # seconds until a process's end is told: its connections close a little before

Life = asyncio.Future[Exit]  # how a process of ours ended, once it has


class Risk:
    """Which process has the request, and which one broke off while it had it."""

    __slots__ = ("error", "life", "suspect")

    def __init__(self) -> None:
        self.life: Life | None = None
        self.suspect: Life | None = None
        self.error: BioproxyError | None = None

    def check(self) -> None:
        """EngineDied if the process that broke off has ended by itself."""
        if self.suspect is None or not self.suspect.done() or self.suspect.cancelled():
            return
        end = self.suspect.result()
        if not end.expected:
            sentence = f"the engine {how(end.code, expected=True)} while it had this request"
            raise EngineDied(f"{sentence}; it is not sent again, for the next engine might end in the same way")

    def note(self, error: BioproxyError) -> bool:
        """A try has failed with `error`; False if that was noted before."""
        if error is self.error:
            return False
        self.error = error
        if isinstance(error, EngineUnavailable) and error.sent:
            self.suspect = self.life
        return True


class Only:
    """The place at the one engine that there is; `life` is its present process, if it is ours."""

    __slots__ = ("engine", "life", "risk")

    def __init__(self, engine: Station, life: Callable[[], Life | None] = lambda: None) -> None:
        self.engine = engine
        self.life = life
        self.risk = Risk()

    async def take(self, want: object) -> None:  # noqa: ARG002 - there is only one engine
        """It is there, or its gate is closed until it is."""
        self.engine.wake()

    def sending(self) -> None:
        """It goes to the process that is there now."""
        self.risk.check()
        self.risk.life = self.life()

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

    async def broke_off(self, error: BioproxyError) -> None:
        """Have the engine looked at."""
        self.engine.attachment.suspect(error.message)
        if self.risk.note(error) and self.risk.life is not None:
            await asyncio.wait([self.risk.life], timeout=NEWS)

    def lost(self, error: EngineUnavailable, attempt: int) -> bool:
        """One of ours will be back."""
        if not self.engine.owned or error.status == TIMED_OUT or isinstance(error, EngineDied):
            return False
        self.risk.check()
        return attempt < ATTEMPTS


class Wait:
    """One wait for a model, from now to `end`; its parts are those of all who wait for it meanwhile."""

    __slots__ = ("before", "model", "started", "supervisor")

    def __init__(self, supervisor: Supervisor, model: str) -> None:
        self.supervisor = supervisor
        self.model = model
        self.started = supervisor.clock()
        self.before = supervisor.schedule.waited(model, self.started)

    def end(self, record: Record) -> None:
        """Add it to what the request waited before; what has no name (the model is gone) was for the schedule."""
        now = self.supervisor.clock()
        whole = now - self.started
        parts = between(self.before, self.supervisor.schedule.waited(self.model, now))
        parts.pop("", None)
        parts["in_use"] = parts.get("in_use", 0.0) + max(0.0, whole - sum(parts.values()))
        record.swap += whole
        waits = record.waits = record.waits or {}
        for part, seconds in parts.items():
            if seconds > NOTHING:
                waits[part] = waits.get(part, 0.0) + seconds


class OfModel:
    """A place at one of many models. `loading` is called when it has to be waited for; what it returns, at the end."""

    __slots__ = ("exchange", "hold", "loading", "model", "risk", "supervisor", "timeout")

    def __init__(
        self,
        supervisor: Supervisor,
        model: str,
        exchange: Exchange,
        *,
        timeout: float,
        loading: Callable[[Ticket], Callable[[bool], None]] | None = None,
    ) -> None:
        self.supervisor = supervisor
        self.model = model
        self.exchange = exchange
        self.timeout = timeout
        self.loading = loading
        self.hold: Hold | None = None
        self.risk = Risk()

    @property
    def engine(self) -> Station:
        """The engine whose process is held."""
        assert self.hold is not None
        assert self.hold.unit is not None
        return self.hold.unit.station

    async def take(self, want: object) -> None:
        """Wait for the model; the time counts as `swap`. What is refused at once is refused before anything is sent."""
        self.risk.check()
        again = self.hold is not None and self.hold.recalled
        if not again:
            self.leave()
            self.hold = self.supervisor.enter(self.model, key=want)
            if self.hold.future is None:
                return  # it is ready
        assert self.hold is not None
        stop = self.loading(self.hold.ticket) if self.loading is not None else None
        wait, ready = Wait(self.supervisor, self.model), False
        try:
            if again:
                await self.supervisor.again(self.hold, timeout=self.timeout)
            else:
                await self.supervisor.wait(self.hold, self.timeout)
            ready = True
        finally:
            wait.end(self.exchange.record)
            if stop is not None:
                stop(ready)

    def gated(self, task: asyncio.Task[object] | None) -> None:
        """Tell the supervisor whom to cancel where it takes the place back."""
        if self.hold is not None:
            self.hold.in_gate = task

    def sending(self) -> None:
        """It goes to the process that is held."""
        self.risk.check()
        if self.hold is not None and self.hold.unit is not None:
            self.risk.life = self.hold.unit.ended

    def taken_back(self) -> bool:
        """Whether this task was cancelled by the supervisor and by nobody else."""
        task = asyncio.current_task()
        return self.hold is not None and self.hold.recalled and task is not None and task.uncancel() == 0

    def timing(self) -> bytes:
        """The wait, and where it went if it was for a swap, in milliseconds."""
        record = self.exchange.record
        if not record.swap:
            return b""
        parts = {"swap": record.swap, **dict.fromkeys(ALWAYS_TOLD, 0.0), **(record.waits or {})}
        told = ((SWAP_NAMES.get(name, name).encode(), seconds * 1e3) for name, seconds in parts.items())
        return b"".join(b", %b;dur=%.1f" % part for part in told)

    def leave(self) -> None:
        """Give the place back."""
        if self.hold is not None:
            tail = self.exchange.tail.last() if self.exchange.tail.total else b""
            self.hold.release(tool_calls=any(mark in tail for mark in TOOL_CALLS))
            self.hold = None

    async def broke_off(self, error: BioproxyError) -> None:
        """The schedule hears of it, too: who waits in the engine's gate waits for the next process."""
        if self.risk.note(error):
            await self.supervisor.confirm(self.model)

    def lost(self, error: EngineUnavailable, attempt: int) -> bool:
        """Once more, with the model's next process if this one is gone; not after an unload."""
        if error.status == TIMED_OUT or isinstance(error, EngineDied):
            return False
        cut = self.hold.cut if self.hold is not None else ""
        if not cut:
            self.risk.check()
        elif cut != RESTARTED:
            raise EngineUnavailable(f"the model {self.model} was stopped while it had this request ({cut})") from error
        return attempt == 1 and self.hold is not None
