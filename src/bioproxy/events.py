"""The event bus: lower packages say what happened, and never learn who listens.

Every event is a frozen Struct. `Bus.publish` calls the subscribers of that class at once, in order of subscription,
on the loop's thread: a subscriber must be short and must not raise (a fault is logged and the others still hear it).
metrics.py, the log of the admin's `/events` stream and `/status` live from this; nothing may *depend* on an event to be
correct, for that is what function calls are for.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import msgspec

from bioproxy.activity import Capture, Cause, InflightRequest, Record

log = logging.getLogger(__name__)


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True, tag_field="event"):
    """What happened; the tag `event` is the class's name, so that `/events` can send it as JSON."""


class RequestEnded(Event, frozen=True, kw_only=True):
    """The last byte of an answer is out, or the request failed. `capture` is private and must not be passed on."""

    record: Record
    capture: Capture | None = None


class PromptMissed(Event, frozen=True, kw_only=True):
    """`tokens` of a request's prompt were evaluated again, which took `seconds`; the first time, both are 0."""

    id: str
    model: str
    client: str
    cause: Cause
    tokens: int
    seconds: float


class EngineChanged(Event, frozen=True, kw_only=True):
    """The engine became `absent`, `loading`, `ready` or `stuck`; `reason` is one sentence."""

    url: str
    state: str
    reason: str = ""
    model: str = ""
    build: str = ""


class ModelChanged(Event, frozen=True, kw_only=True):
    """A model's process changed its state (models/state.py's words); `reason` is one sentence, or empty."""

    model: str
    old: str
    new: str
    reason: str = ""


class SwapEnded(Event, frozen=True, kw_only=True):
    """A model was loaded, whether a request waited for it or not; seconds.

    `save` and `stop` of the models that made room, `start` from the process to its health, `restore` of its KV cache;
    `ours` is the rest.
    """

    model: str
    displaced: tuple[str, ...]
    stop: float
    save: float
    start: float
    restore: float
    ours: float


class ModelStopped(Event, frozen=True, kw_only=True):
    """A model's process was ended by us: `reason` is swap, ttl, unload, reload, removed or shutdown."""

    model: str
    reason: str


class ProfileChanged(Event, frozen=True, kw_only=True):
    """Another profile is active, or none ("")."""

    active: str


class SnapshotSaved(Event, frozen=True, kw_only=True):
    """A snapshot is on disk and verified. `prefix` is empty for a conversation."""

    prefix: str
    tokens: int
    bytes: int
    seconds: float


class SnapshotRestored(Event, frozen=True, kw_only=True):
    """A restore was tried: `ok`, `failed`, `worthless` (the engine did not use what it read) or `displaced`.

    Displaced: it went through the engine's RAM cache before it was used, and little came back.
    """

    prefix: str
    status: str
    tokens: int
    seconds: float


class SnapshotMissing(Event, frozen=True, kw_only=True):
    """A request with a template found nothing of it in a slot, and no snapshot that may be used."""

    prefix: str


class SnapshotDropped(Event, frozen=True, kw_only=True):
    """A snapshot left the index: `budget`, `replaced`, `aged`, `quarantined`, `changed`, `missing`, `deleted`."""

    prefix: str
    reason: str
    bytes: int


class SavingPaused(Event, frozen=True, kw_only=True):
    """Saving stopped (`paused`) or resumed; `reason` is for people, `kind` for the metrics label.

    `model` is whose snapshots are meant ("" if one engine is served), `folder` where they are written.
    """

    paused: bool
    kind: str
    reason: str
    model: str = ""
    folder: str = ""


class WarmupChecked(Event, frozen=True, kw_only=True):
    """The warm-up looked whether there is anything to do."""


class WarmupStarted(Event, frozen=True, kw_only=True):
    """A warm-up of `prefix` begins or resumes at `done` of `tokens` tokens."""

    prefix: str
    tokens: int
    done: int


class WarmupYielded(Event, frozen=True, kw_only=True):
    """A warm-up gave way to a user after `done` of `tokens` tokens."""

    prefix: str
    tokens: int
    done: int


class WarmupEnded(Event, frozen=True, kw_only=True):
    """A warm-up's prompt prefix is resident (and saved, if that is possible)."""

    prefix: str
    tokens: int
    evaluated: int
    seconds: float


class WarmupFailed(Event, frozen=True, kw_only=True):
    """A warm-up failed; `type` is one word for the metrics label, `reason` a sentence."""

    prefix: str
    type: str
    reason: str


class TemplateChanged(Event, frozen=True, kw_only=True):
    """A template's text changed and settled; `cost` says in words what that makes the engine compute again."""

    prefix: str
    version: str
    cost: str = ""


class TemplateFault(Event, frozen=True, kw_only=True):
    """A template or an include cannot be read; the last good text stays in use. Empty `reason`: mended."""

    prefix: str
    reason: str


class ConfigReloaded(Event, frozen=True, kw_only=True):
    """A reload was tried; `error` is empty when it was taken over."""

    error: str = ""
    changed: tuple[str, ...] = ()


class PauseChanged(Event, frozen=True, kw_only=True):
    """An operator paused the program, until a unix time or (None) until further notice; or that is over."""

    paused: bool
    until: float | None = None


class ServiceFailed(Event, frozen=True, kw_only=True):
    """A guarded service raised and starts again."""

    name: str
    error: str


class InflightChanged(Event, frozen=True, kw_only=True):
    """A request came or moved on (`upsert`, with its `request`), or ended (`remove`). Only sent while it is heard."""

    operation: Literal["upsert", "remove"]
    id: str
    request: InflightRequest | None = None
    client: str = ""  # whose request it is


class ActivityAdded(Event, frozen=True, kw_only=True):
    """A request became a row of the activity table."""

    id: int


E = TypeVar("E", bound=Event)


class Bus:
    """Subscribers by event class. One bus per App; no global one, so that tests do not hear each other."""

    def __init__(self) -> None:
        self.subscribers: dict[type[Event], tuple[Callable[[Any], None], ...]] = defaultdict(tuple)

    def subscribe(self, kind: type[E], callback: Callable[[E], None]) -> Callable[[], None]:
        """Call `callback` for each event of exactly the class `kind` (of every class for `Event` itself).

        Returns what ends the subscription.
        """
        self.subscribers[kind] = (*self.subscribers[kind], callback)
        return lambda: self.forget(kind, callback)

    def forget(self, kind: type[Event], callback: Callable[[Any], None]) -> None:
        callbacks = list(self.subscribers[kind])
        callbacks.remove(callback)
        self.subscribers[kind] = tuple(callbacks)  # a new one: `publish` may be going through the old one

    def publish(self, event: Event) -> None:
        """Call every subscriber; returns when all have returned."""
        for kind in (type(event), Event):
            for callback in self.subscribers.get(kind, ()):
                try:
                    callback(event)
                except Exception:
                    log.exception("a subscriber of %s failed", type(event).__name__)
