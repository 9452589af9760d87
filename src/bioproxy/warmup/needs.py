"""What a warm-up needs of others, as Protocols: gate, keeper, catalogue and engine are known by these few methods.

They stand together so that one look tells how the warm-up is tied to the rest, and so that its rules can be tested on
small stand-ins in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from bioproxy.engines.answers import Timings
from bioproxy.kv.policy import Speeds
from bioproxy.kv.resident import Prepared, Want
from bioproxy.prompt import Head, Piece
from bioproxy.templates.catalogue import Filled
from bioproxy.warmup.prefix import Renderer


class Grant(Protocol):
    """The right to use the engine (gate/gate.py)."""

    @property
    def waited(self) -> float:
        """Seconds in the queue."""

    @property
    def exclusive(self) -> bool:
        """Whether it has the engine alone."""

    def try_exclusive(self) -> bool:
        """Have the engine alone; False when something else runs."""

    def share(self) -> None:
        """Let others in again."""

    def release(self, *, cut: bool = False, unsent: bool = False) -> None:
        """Give the engine back."""


class Gate(Protocol):
    """Hands out grants (gate/gate.py)."""

    @property
    def user_waiting(self) -> bool:
        """Whether a client waits."""

    async def acquire(self, *, work: Literal["background"], key: object, exclusive: bool) -> Grant:
        """Wait for a background grant."""


class Moments(Protocol):
    """Saves what is resident (kv/moments.py)."""

    async def save_idle(self, grant: Any) -> int:
        """Save the conversation in the slot if it grew and that pays."""


class Keeper(Protocol):
    """Knows what is resident and what is on disk (kv/keeper.py)."""

    @property
    def speeds(self) -> Speeds:
        """What was measured of the engine; `prefill` is in seconds per token."""

    @property
    def watchers(self) -> set[Callable[[], None]]:
        """Who is called when saving goes on that was paused."""

    def want(
        self,
        pieces: Sequence[Piece],
        *,
        prefix: str = "",
        version: str = "",
        head: Head | None = None,
        lora: bytes = b"",
    ) -> Want:
        """Name a prompt."""

    def has_snapshot(self, want: Want) -> object | None:
        """The good snapshot of exactly `want`."""

    def holds(self, want: Want) -> bool:
        """Whether the slot holds all of `want`."""

    async def prepare(self, want: Want, grant: Any) -> Prepared:
        """Restore what pays."""

    def served(self, want: Want, prepared: Prepared, timings: Timings | None, *, complete: bool) -> None:
        """What was prepared came to its end; `complete`: the slot holds `want` now."""

    @property
    def moments(self) -> Moments:
        """What saves the conversation in the slot."""

    async def keep(self, want: Want, tokens: int, grant: Any, *, seconds: float) -> bool:
        """Save the prompt prefix in the slot."""


class Catalogue(Protocol):
    """The templates (templates/catalogue.py)."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All prefixes, in order."""

    @property
    def watchers(self) -> set[Callable[[], None]]:
        """Who is called when a text changed."""

    async def check(self) -> tuple[str, ...]:
        """Look at the files."""

    def current(self, prefix: str) -> Filled:
        """The text to use."""


class Engine(Renderer, Protocol):
    """The engine's client (engines/llama.py): what renders, and what computes."""

    async def prefill(self, tokens: Sequence[int] | str, *, lora: bytes = b"") -> Timings:
        """Evaluate `tokens`, generate nothing."""

    async def chat(self, body: bytes) -> Timings:
        """One chat request."""
