"""A request's claim on a model: from asking for it until the last byte, as often as it is tried.

A model has its process started, kept and stopped by the supervisor, and a claim keeps it in its place. So has the only
engine, which is ready for the schedule unless it was unloaded: its gate is closed until it can serve.

**What a process died of is never sent to another one.** A prompt that kills the engine would kill the next one too,
and all would wait for two loads. So a request goes again only if none of it was sent, if the process that had it lives
(it only broke the connection), or if we ended that process ourselves for a reload.

What can be cancelled where: a request's task in `take`, after which it is out of the queue, and in its engine's gate,
there also by the supervisor (`in_gate`, `taken_back`). After `take` there is always a `leave`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bioproxy.activity import Record
from bioproxy.engines.process import Exit, how
from bioproxy.errors import BioproxyError, EngineDied, EngineUnavailable
from bioproxy.kv.keeper import Want
from bioproxy.models.supervisor import Supervisor
from bioproxy.models.waits import Part, between
from bioproxy.models.wish import Place, Wish
from bioproxy.station import Station

TIMED_OUT = 504  # the engine may be at it still, and the client has waited long enough
ATTEMPTS, OF_ONE = 2, 3  # of a request that a model lost before its first byte; that the only engine lost
RESTARTED = "reload"  # why we stop a process that is back at once
NOTHING = 1e-6  # seconds: what rounding leaves

Life = asyncio.Future[Exit]  # how a process of ours ended, once it has
Loading = Callable[[Wish], Callable[[bool], None]]


class Recalled(Exception):
    """The request only waited in the gate of its model, which has to make way first: it waits for the model anew."""


class Claim(Wish):
    """A claim on one model. `loading` is called if it has to be waited for; what it returns, at the end.

    `record` hears how long the wait was, and what it was for. `life` is the process that has the request, `suspect` the
    one that broke off while it had it.
    """

    life: Life | None = None
    suspect: Life | None = None
    error: BioproxyError | None = None

    def __init__(
        self, supervisor: Supervisor, model: str, record: Record, *, timeout: float, loading: Loading | None
    ) -> None:
        self.model = model
        self.supervisor = supervisor
        self.record = record
        self.timeout = timeout
        self.loading = loading
        self.station: Station  # of the process that `take` waited for: a reload may have changed the model's meanwhile

    async def take(self, want: Want | None) -> None:
        """Wait until the process is there, with what `want` names in its cache if that pays; it counts as `swap`.

        What is refused at once is refused before anything is sent.
        """
        if self.suspect is not None:
            self.check()
        if not self.recalled:
            if self.place is not Place.NEW:
                self.leave()
                self.renew()
            self.key = want
            try:
                self.supervisor.enter(self)
            except BaseException:
                self.in_vain()
                raise
            if self.future is None:
                self.station = self.unit.station  # type: ignore[union-attr] # it is ready
                return
        stop = self.loading(self) if self.loading is not None else None
        started, ready = self.supervisor.clock(), False
        before = self.supervisor.schedule.waited(self.model, started)
        try:
            await (self.supervisor.again if self.recalled else self.supervisor.wait)(self, timeout=self.timeout)
            self.station = self.unit.station  # type: ignore[union-attr]
            ready = True
        finally:
            if not ready:
                self.in_vain()
            self.waited(started, before)
            if stop is not None:
                stop(ready)

    def in_vain(self) -> None:
        """It never comes to an engine's gate, where the others are counted; in a pause there is nothing to count."""
        if self.supervisor.refusal is None:
            self.record.gated = True

    def waited(self, started: float, before: dict[Part, float]) -> None:
        """Add a wait to the record; what has no name (the model is gone) was for the schedule.

        That the only engine's process is begun is the smaller part of a wait that goes on in its gate.
        """
        record, now = self.record, self.supervisor.clock()
        if self.unit is not None and self.unit.station.looked_after:
            record.queue += now - started
            return
        parts = between(before, self.supervisor.schedule.waited(self.model, now))
        parts.pop("", None)
        parts["in_use"] = parts.get("in_use", 0.0) + max(0.0, now - started - sum(parts.values()))
        record.swap += now - started
        waits = record.waits = record.waits or {}
        for part, seconds in parts.items():
            if seconds > NOTHING:
                waits[part] = waits.get(part, 0.0) + seconds

    def sending(self) -> None:
        """The request is about to go out. EngineDied if a process that had it before has died by itself."""
        if self.suspect is not None:
            self.check()
        if self.unit is not None:
            self.life = self.unit.process.watcher

    def leave(self, *, tool_calls: bool = False) -> None:
        """Done, or given up, with this try; `tool_calls`: the answer ended in some, so the next request will come."""
        self.error = None  # its frames know us
        self.supervisor.release(self, tool_calls=tool_calls)

    def taken_back(self) -> bool:
        """Whether the cancellation that just arrived was the supervisor's, and only that: then `take` again."""
        task = asyncio.current_task()
        return self.recalled and task is not None and task.uncancel() == 0

    # a try that failed

    def check(self) -> None:
        """Raise EngineDied if the process that broke off has ended by itself."""
        if self.suspect is None or not self.suspect.done() or self.suspect.cancelled():
            return
        end = self.suspect.result()
        if not end.expected:
            sentence = f"the engine {how(end.code, expected=True)} while it had this request"
            raise EngineDied(f"{sentence}; it is not sent again, for the next engine might end in the same way")

    async def broke_off(self, error: BioproxyError) -> None:
        """The engine was lost before the end of its answer: let the news of its process's end arrive.

        Under the grant, if there is one: no other request shall be let at an engine that is about to be gone. The
        schedule hears of it, too: requests in the engine's gate wait for the next process.
        """
        if self.station.looked_after:
            self.station.attachment.suspect(error.message)
        if error is self.error:  # noted before
            return
        self.error = error
        if isinstance(error, EngineUnavailable) and error.sent:
            self.suspect = self.life
        await self.supervisor.confirm(self.model)

    def lost(self, error: EngineUnavailable, attempt: int) -> bool:
        """Whether to try once more: with the model's next process if this one is gone; not after an unload."""
        if not self.station.owned or error.status == TIMED_OUT or isinstance(error, EngineDied):
            return False
        if not self.cut:
            self.check()
        elif self.cut != RESTARTED:
            self.raise_cause(error)
        return attempt < (OF_ONE if self.station.looked_after else ATTEMPTS)

    def raise_cause(self, error: BioproxyError) -> None:
        """Raise what a client is told whose request broke off because we stopped the engine, if we did."""
        if self.cut and error.status != TIMED_OUT and not isinstance(error, EngineDied):
            who = "the engine" if self.station.looked_after else f"the model {self.model}"
            raise EngineUnavailable(f"{who} was stopped while it had this request ({self.cut})") from error
