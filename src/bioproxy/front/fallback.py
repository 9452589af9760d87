"""Another model when the one that was asked for can't: one try, and what of its end lets another one have the request.

A failure is a model that does not start, an answer or an error with one of its `fallbackStatus`, or no first byte for
`fallbackAfter` seconds. The last model that may be tried has no failures of this kind: what it says, its client gets.

**Nothing is said twice.** Once the client has a byte of an engine's answer, that model's failure is the answer. Signs
of life, and words about a load, are no such byte: a stream that began with them goes on with another engine's events.

**What a process died of is never sent to another one** (models/claim.py), to another model no more than to its own next
process.

What can be cancelled: a try that is late cancels its own request's task, which gives back model, grant and connection
on its way here, as it does when a client leaves.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from urllib.parse import quote

from bioproxy.errors import BioproxyError, EngineDied, EngineUnavailable, ModelFailed, TokensSpent
from bioproxy.front.exchange import NOTHING, Exchange

HEADER = b"X-Bioproxy-Fallback"
STATUSES = frozenset({500, 502, 503, 504})  # of a peer's model
PLAIN = "/:@+"  # of a model's name in it, beside letters and digits


class Failed(Exception):
    """A try has failed, and another model may have the request. `reason` is one word: `start`, `late`, or a status."""

    def __init__(self, reason: str, error: BioproxyError) -> None:
        self.reason = reason
        self.error = error
        super().__init__(error.message)


class Try:
    """One try, as a block: raises Failed if another model may have the request, else what the block raises.

    `statuses` are those that count as a failure, `patience` the seconds until its first byte (0: any number).
    """

    def __init__(self, exchange: Exchange, *, statuses: frozenset[int], patience: float) -> None:
        self.exchange = exchange
        self.statuses = statuses
        self.patience = patience
        self.late = False
        self.timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self.exchange.failing = self.statuses
        if self.patience:
            self.timer = asyncio.get_running_loop().call_later(self.patience, self.expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.exchange.failing = NOTHING
        if self.timer is not None:
            self.timer.cancel()
        if self.late:
            task = asyncio.current_task()
            if task is not None and task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
                late = EngineUnavailable(f"it said nothing for {self.patience:g} s (fallbackAfter)", status=504)
                raise Failed("late", late) from None
        elif isinstance(error, BioproxyError) and self.counts(error) and may_go_on(self.exchange):
            reason = "start" if isinstance(error, ModelFailed) else str(error.status)
            raise Failed(reason, error) from error

    def counts(self, error: BioproxyError) -> bool:
        """Whether an error is a failure that another model may put right; a key without tokens is none of a model."""
        if isinstance(error, EngineDied | TokensSpent):
            return False
        return isinstance(error, ModelFailed) or error.status in self.statuses

    def expire(self) -> None:
        """The model had its time: end the try, unless it has spoken."""
        if may_go_on(self.exchange) and not self.exchange.responder.finished and self.exchange.task is not None:
            self.late = True
            self.exchange.task.cancel()


def may_go_on(exchange: Exchange) -> bool:
    """Whether the client has nothing yet of an engine's answer that another engine's could not go on from."""
    if exchange.tail.first is not None:
        return False
    return not exchange.responder.started or (exchange.streaming and exchange.plain())


def begin_anew(exchange: Exchange, target: bytes) -> None:
    """Forget what a try made of the request, but for what its client has already."""
    exchange.target, exchange.body, exchange.json = target, exchange.request.body, None
    exchange.reply, exchange.fields, exchange.said = [], {}, None
    exchange.record.status = 0
    if exchange.responder.started:
        exchange.opened = True


def note(exchange: Exchange, model: str, failed: Failed) -> None:
    """Say that a model could not, in a header, or in the stream that has begun."""
    word = f"{quote(model, safe=PLAIN)};reason={failed.reason}"
    metadata = exchange.record.metadata
    metadata["fallback"] = ", ".join(filter(None, (metadata.get("fallback"), word)))
    said = metadata["fallback"].encode("ascii")
    responder = exchange.responder
    if not responder.started:
        responder.extra = [pair for pair in responder.extra if pair[0] != HEADER] + [(HEADER, said)]
    elif exchange.dialect != "anthropic":
        responder.write(b": fallback %b\n\n" % said)
