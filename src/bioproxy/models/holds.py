"""A request's hold on a model, and what it is told when it cannot have one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bioproxy.errors import BioproxyError, ModelBusy, ModelFailed, NotFound, QueueFull, QueueTimeout
from bioproxy.models.effects import Fail
from bioproxy.models.ticket import Ticket
from bioproxy.models.unit import Unit

UNSPECIFIC = "unspecific error: "  # how llama-swap's sentences on a model that cannot be had begin


class Hold:
    """A request's right to use a model's engine; its process is not stopped for others until `release`.

    `waited`: seconds until it was granted; `unit` is then whose process it is. While it only waits in the engine's gate
    (`in_gate` is set), it may be taken back: then `recalled` is true, its task is cancelled once, and it asks `again`.
    """

    __slots__ = ("cut", "future", "in_gate", "key", "recalled", "release_to", "ticket", "unit", "waited")

    def __init__(self, ticket: Ticket, key: object, *, release_to: Callable[[Hold, bool], None]) -> None:
        self.release_to = release_to
        self.ticket = ticket
        self.key = key
        self.future: asyncio.Future[None] | None = None
        self.in_gate: asyncio.Task[object] | None = None
        self.recalled = False
        self.cut = ""  # why its process was stopped by us while it ran
        self.waited = 0.0
        self.unit: Unit | None = None

    def release(self, *, tool_calls: bool = False) -> None:
        """Give the right back; `tool_calls`: the answer ended in some, so the next request is certain to come."""
        self.release_to(self, tool_calls)


def error_of(effect: Fail) -> BioproxyError:
    """What a client is told."""
    why, reason, retry = effect.why, effect.reason, effect.retry_after
    if why == "limit":
        return ModelBusy(reason, retry_after=retry)
    if why == "full":
        return QueueFull(reason, retry_after=retry)
    if why in {"unknown", "removed"}:
        return NotFound(reason)
    if why == "shutdown":
        return QueueTimeout(f"{UNSPECIFIC}{reason}", retry_after=10)
    return ModelFailed(f"{UNSPECIFIC}{reason}", retry_after=retry)


def unloaded(rules: str) -> ModelFailed:
    """What those hear whose model was unloaded while they waited in its gate."""
    return ModelFailed(f"{UNSPECIFIC}{rules}: model unloaded")
