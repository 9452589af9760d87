"""What metrics.py reads of the stateful parts, as Protocols: their `statistics()`, as far as it becomes a series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class GateView(Protocol):
    """What of the gate's statistics becomes metrics."""

    @property
    def capacity(self) -> int:
        """Grants at once."""

    @property
    def open(self) -> bool:
        """Whether the engine is ready."""

    @property
    def draining(self) -> bool:
        """Whether the engine may still be at a request whose client left."""

    @property
    def running(self) -> Mapping[Any, int]:
        """Grants by class."""

    @property
    def waiting(self) -> Mapping[Any, int]:
        """Tickets by class."""

    @property
    def oldest_wait(self) -> float:
        """Seconds."""


class KvView(Protocol):
    """What of the keeper's statistics becomes metrics."""

    @property
    def snapshots(self) -> int:
        """Usable snapshots on disk."""

    @property
    def bytes(self) -> int:
        """What they take."""

    @property
    def pauses(self) -> Mapping[str, int]:
        """Models whose saving is paused, by kind."""


class EngineView(Protocol):
    """What of the attachment's statistics becomes metrics."""

    @property
    def state(self) -> str:
        """`ready` or why not."""


class TemplateView(Protocol):
    """What of a template's statistics becomes metrics."""

    @property
    def prefix(self) -> str:
        """Its trigger."""

    @property
    def state(self) -> str:
        """`ok` or `fault`."""

    @property
    def bytes(self) -> int:
        """Length of the filled text."""


class ServerView(Protocol):
    """What of a listener's statistics becomes metrics."""

    @property
    def connections(self) -> int:
        """Open now."""

    @property
    def accepted(self) -> int:
        """Since the start."""

    @property
    def refused(self) -> int:
        """Requests that were no valid HTTP, too large or too slow."""


class ModelView(Protocol):
    """One of many models."""

    @property
    def model(self) -> str:
        """Its ID."""

    @property
    def running(self) -> int:
        """Requests that hold it in its place."""

    @property
    def waiting(self) -> int:
        """Requests that wait for it."""

    @property
    def state(self) -> Any:
        """An Enum of models/state.py."""


class FleetView(Protocol):
    """Many models."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a model."""

    @property
    def models(self) -> Iterable[ModelView]:
        """Each of them."""
