"""What the schedule wants done, as values; the supervisor does it, in the order given.

The names are those of the acts, so that the supervisor is one `match`. Nothing here may be refused: when an effect is
returned, it has been counted already.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bioproxy.errors import BioproxyError, Closed, ModelBusy, ModelFailed, NotFound, QueueFull
from bioproxy.models.state import State
from bioproxy.models.wish import Wish

Why = Literal["failed", "full", "limit", "removed", "shutdown", "unknown", "unloaded"]
UNSPECIFIC = "unspecific error: "  # how llama-swap's sentences on a model that cannot be had begin
StopReason = Literal["swap", "ttl", "unload", "reload", "removed", "shutdown"]


class Serve(msgspec.Struct, frozen=True):
    """The model is ready and stays until `Schedule.end(wish)`: let the request go to its engine's gate."""

    wish: Wish


class Loaded(msgspec.Struct, frozen=True):
    """What a load asked for is there; its wish is done."""

    wish: Wish


class Fail(msgspec.Struct, frozen=True):
    """Answer the request with an error; its wish is done. `retry_after` is in whole seconds.

    `failed` carries the engine's last words; `limit` is the model's own concurrencyLimit, `full` the queue's.
    """

    wish: Wish
    why: Why
    reason: str
    retry_after: int | None = None


class Start(msgspec.Struct, frozen=True):
    """Start the process, wait until it is healthy, restore what the first of `Schedule.waiting_for` needs.

    Then report `ready`, or `ended` if that failed and no process is left; with this `life`. `again`: the second try
    of a start that died right after another's stop.
    """

    model: str
    life: int
    again: bool = False


class Stop(msgspec.Struct, frozen=True):
    """Save what pays, end the process within `grace` seconds, kill what is left; report `ended` with this `life`.

    Requests that still run on it (after an unload's grace) are cut by this. `displaced_by` is the model that comes
    instead: a user waits, so the save has less time.
    """

    model: str
    life: int
    reason: StopReason
    grace: float
    displaced_by: str = ""


class Recall(msgspec.Struct, frozen=True):
    """A request has waited too long for `model` to go: take back the requests that are still in its engine's gate.

    `Schedule.recall` for those whose wish came after number `newer_than`. Those that the engine works on finish.
    """

    model: str
    newer_than: int


class Changed(msgspec.Struct, frozen=True):
    """A process's state changed; for events, metrics and those that wait for a stop. `reason` says why, "" if plain."""

    model: str
    old: State
    new: State
    reason: str = ""


def error_of(effect: Fail, lead: str) -> BioproxyError:
    """What the client is told; `lead` is how sentences on a model that cannot be had begin."""
    why, reason, retry = effect.why, effect.reason, effect.retry_after
    if why == "limit":
        return ModelBusy(reason, retry_after=retry)
    if why == "full":
        return QueueFull(reason, retry_after=retry)
    if why in {"unknown", "removed"}:
        return NotFound(reason)
    if why == "shutdown":
        return Closed(f"{lead}{reason}", retry_after=10)
    return ModelFailed(f"{lead}{reason}", retry_after=retry)


Effect = Serve | Loaded | Fail | Start | Stop | Recall | Changed
