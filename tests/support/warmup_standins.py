"""Small engines and keepers in memory for the warm-up's tests: they do what llama-server and the keeper do, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Self

from bioproxy import aio
from bioproxy.engines.answers import Timings
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv.chain import chain
from bioproxy.kv.policy import Speeds
from bioproxy.kv.resident import Prepared, Want
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Head, Piece
from bioproxy.templates.catalogue import Filled
from support.settings import settings

FACTS = EngineFacts(
    url="http://engine", build="b1", slots=1, context=100_000, capabilities=Capabilities(True, True, True, True)
)


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Tokens in common, one by one."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


class Slot:
    """One slot of a server that keeps what a slot loses in its RAM cache, if `ram`; time is virtual."""

    def __init__(self, *, ram: bool = True, speed: float = 1000.0) -> None:
        self.tokens: list[int] = []
        self.kept: list[list[int]] = []
        self.ram = ram
        self.speed = speed
        self.now = 0.0
        self.prompts: list[list[int]] = []
        self.evaluated = 0
        self.before: Callable[[], object] = lambda: None  # called while a request runs
        self.faults: list[Exception] = []

    async def prefill(self, tokens: Sequence[int] | str, *, lora: bytes = b"") -> Timings:
        if self.faults:
            raise self.faults.pop(0)
        prompt = [ord(letter) for letter in tokens] if isinstance(tokens, str) else list(tokens)
        self.before()
        await asyncio.sleep(0)
        self.prompts.append(prompt)
        return self.run(prompt)

    def run(self, prompt: list[int]) -> Timings:
        """What the server does with a prompt: find what it has, evaluate the rest, at least one token."""
        if self.ram and self.tokens and shared(self.tokens, prompt) < len(self.tokens) / 2:
            self.kept.append(self.tokens)
            best = max(self.kept, key=lambda one: shared(one, prompt))
            self.tokens = []
            if shared(best, prompt) >= len(best) / 4:
                self.kept.remove(best)
                self.tokens = best
        cached = min(shared(self.tokens, prompt), len(prompt) - 1)
        evaluated = len(prompt) - cached
        self.tokens = prompt
        self.evaluated += evaluated
        self.now += evaluated / self.speed
        return Timings(cached=cached, evaluated=evaluated, generated=0, prefill=evaluated / self.speed, decode=0.0)

    async def chat(self, body: bytes) -> Timings:
        return await self.prefill(list(body))

    async def apply_template(self, body: bytes) -> str:
        return body.decode()

    async def tokenize(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def clock(self) -> float:
        return self.now


class Memory:
    """A keeper that keeps whole slots by the digest of a want's end."""

    speeds = Speeds(prefill=0.001)

    def __init__(self, slot: Slot, *, saves: bool = True) -> None:
        self.slot = slot
        self.saves = saves
        self.snapshots: dict[bytes, list[int]] = {}
        self.restores: dict[
            bytes, tuple[Want, list[int]]
        ] = {}  # what `prepare` shall bring back for a want: whose it is
        self.beginning = 0  # tokens that `prepare` finds resident, of which nobody knows how many are equal
        self.resident: bytes = b""
        self.log: list[str] = []
        self.watchers: set[Callable[[], None]] = set()

    def want(
        self,
        pieces: Sequence[Piece],
        *,
        prefix: str = "",
        version: str = "",
        head: Head | None = None,
        lora: bytes = b"",
    ) -> Want:
        cuts = chain("model", pieces)
        return Want(cuts, cuts[-1].offset, prefix=prefix, version=version)

    def has_snapshot(self, want: Want) -> list[int] | None:
        return self.snapshots.get(want.cuts[-1].digest)

    def holds(self, want: Want) -> bool:
        return self.resident == want.cuts[-1].digest

    async def prepare(self, want: Want, grant: Grant) -> Prepared:
        self.log.append("prepare")
        if want.cuts[-1].digest not in self.restores:
            return Prepared(status="resident" if self.beginning else "", expected=self.beginning)
        older, tokens = self.restores[want.cuts[-1].digest]
        assert grant.try_exclusive()
        self.slot.tokens = list(tokens)
        grant.share()
        snapshot = Snapshot(
            id="1", fingerprint="", build="", cuts=older.cuts, tokens=len(tokens), prompt=len(tokens), size=1
        )
        return Prepared(status="restored", expected=len(tokens), snapshot=snapshot)

    def served(self, want: Want, prepared: Prepared, timings: Timings | None, *, complete: bool) -> None:
        self.log.append("served" if complete else "served in part")
        self.resident = want.cuts[-1].digest if complete else b""

    @property
    def moments(self) -> Self:
        return self

    async def save_idle(self, grant: Grant) -> int:
        assert grant.exclusive
        self.log.append("save conversation")
        return 1

    async def keep(self, want: Want, tokens: int, grant: Grant, *, seconds: float) -> bool:
        assert grant.exclusive
        assert len(self.slot.tokens) == tokens
        assert seconds >= tokens * self.speeds.prefill
        self.log.append("keep")
        if self.saves:
            self.snapshots[want.cuts[-1].digest] = list(self.slot.tokens)
        return self.saves


class Texts:
    """A catalogue whose texts the test sets."""

    def __init__(self, **texts: str) -> None:
        self.texts = {f"@{name}": text for name, text in texts.items()}
        self.looks = 0
        self.watchers: set[Callable[[], None]] = set()

    @property
    def prefixes(self) -> tuple[str, ...]:
        return tuple(self.texts)

    async def check(self) -> tuple[str, ...]:
        self.looks += 1
        return ()

    def current(self, prefix: str) -> Filled:
        text = self.texts[prefix]
        return Filled(prefix, str(hash(text)), (text, ""))


def open_gate(capacity: int = 1) -> Gate:
    return Gate(settings(queue_limit=10, queue_timeout=10.0), capacity=capacity)


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition()` holds, for states that nobody announces."""

    async def look() -> bool | None:
        return True if condition() else None

    assert await aio.poll(look, interval=0.001, deadline=10.0), "it did not come true within 10 s"
