"""A warm-up, with everything real around it or with nothing: both kinds of its tests begin here.

`warm_rig` has gate, keeper, catalogue and the engine's client, before a fake or real engine. `Slot` and `Memory` are
small engines and keepers in memory that do what llama-server and the keeper do, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec

from bioproxy import aio
from bioproxy.engines.answers import Timings, read_answer
from bioproxy.engines.facts import Capabilities, EngineFacts
from bioproxy.events import Event
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv.chain import chain
from bioproxy.kv.fingerprint import Traits
from bioproxy.kv.policy import Speeds
from bioproxy.kv.resident import Prepared, Want
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Head, Piece
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.expand import template_pieces
from bioproxy.templates.parse import Filled
from bioproxy.templates.reading import Reading
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.prefix import chat
from bioproxy.warmup.runner import Runner
from fakes.engine_process import EngineProcess
from support.config_files import settings
from support.kv_rig import Rig, rig, text
from support.leaks import until

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
        self.touched = b"", 0.0
        self.worth = 0  # tokens of a head that are worth a snapshot
        self.watchers: set[Callable[[], None]] = set()

    def traits(self, _path: str) -> Traits:
        return Traits(window=False)

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

    def has_snapshot(self, want: Want) -> Snapshot | None:
        tokens = len(self.snapshots.get(want.cuts[-1].digest, ()))
        if not tokens:
            return None
        return Snapshot(
            id="0" * 16, fingerprint="", build="", cuts=want.cuts, tokens=tokens, prompt=tokens, size=1, created=1.0
        )

    def touch(self, want: Want, used: float) -> None:
        self.touched = want.cuts[-1].digest, used

    def pays(self, tokens: int) -> bool:
        return tokens >= self.worth

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

    @property
    def actions(self) -> Self:
        return self

    async def fork(self) -> None:
        self.log.append("fork")

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

    def reading(self, prefix: str) -> Reading:
        filled = self.current(prefix)
        return Reading((filled.version.encode(),), filled, (), ())

    def versions(self) -> dict[str, str]:
        return {prefix: self.current(prefix).version for prefix in self.texts}


def open_gate(capacity: int = 1) -> Gate:
    return Gate(settings(queue_limit=10, queue_timeout=10.0), capacity=capacity)


BARE = Head()
SHORT, LONG = 1e-9, 1e9  # `chunk_seconds` for chunks of 64 or 8192 tokens, however fast this machine is


class WarmRig:
    """A runner before `rig`'s engine, with the templates that lie in `folder` as `code.txt`, `manual.txt` ..."""

    def __init__(self, parts: Rig, folder: Path, texts: dict[str, str], **config: Any) -> None:
        self.parts = parts
        self.folder = folder
        self.heard = asyncio.Event()
        self.users: list[asyncio.Task[object]] = []
        self.planned = self.happened = 0  # what `during` was told, and what came of it
        parts.bus.subscribe(Event, lambda _event: self.heard.set())
        for name, words in texts.items():
            self.write(name, words)
        paths = {f"@{name}": str(folder / f"{name}.txt") for name in texts}
        usual: Any = {"settle": 0.0, "chunk_seconds": LONG}
        warmup = {f"warmup__{name}": value for name, value in (usual | config).items()}
        self.settings = settings(warmup_check_interval=1000.0, **warmup)
        self.catalogue = Catalogue(paths, folder=str(folder), settings=self.settings, bus=parts.bus)
        self.catalogue.load()
        self.heads = Heads(str(folder / "state" / "heads"), settings=self.settings, max_age=1e6)
        self.runner = Runner(
            settings=self.settings,
            gate=parts.gate,
            keeper=parts.keeper,
            catalogue=self.catalogue,
            engine=parts.llama,
            heads=self.heads,
            bus=parts.bus,
        )

    def write(self, name: str, words: str) -> None:
        """Write a template; the message comes at its end."""
        (self.folder / f"{name}.txt").write_text(words + "<{message}>")

    async def attach(self) -> None:
        """The engine is ready: as app does it."""
        facts = await self.parts.facts()
        await self.parts.keeper.attached(facts)
        self.runner.attached(facts)
        self.parts.gate.open()

    def gone(self, reason: str = "it went away") -> None:
        """The engine is away: as app does it."""
        self.parts.keeper.gone(reason)
        self.runner.gone()
        self.parts.llama.pace.forget()
        self.parts.llama.pace.next_at = 0.0  # the next process may be asked at once

    def during(self, tokens: int, action: Callable[[], Awaitable[object]]) -> None:
        """Let `action` happen while the warm-up's chunk runs that reaches `tokens`; what was named first, first."""
        llama, prefill = self.parts.llama, self.parts.llama.prefill
        turn, self.planned = self.planned, self.planned + 1

        async def meanwhile(prompt: Sequence[int] | str, **more: Any) -> Timings:
            timings = await prefill(prompt, **more)
            if len(prompt) >= tokens and turn == self.happened:
                self.happened += 1
                await action()
            return timings

        llama.prefill = meanwhile  # type: ignore[method-assign, assignment]

    async def user(self) -> None:
        """A user's request arrives, and waits."""
        self.users.append(aio.spawn(self.parts.ask(text(40, f"user {len(self.users)}")), name="user"))
        await until(lambda: self.parts.gate.user_waiting)

    async def until(self, kind: type[Event], *, times: int = 1) -> None:
        """Wait until so many events of `kind` were published."""
        async with asyncio.timeout(30):
            while len(self.parts.heard(kind)) < times:
                self.heard.clear()
                await self.heard.wait()

    async def settled(self) -> None:
        """Wait until nothing is left to do, and every snapshot is on disk."""
        busy = {"waiting", "warming"}
        await until(lambda: self.states() and not busy & {one.state for one in self.runner.statistics().targets})
        await self.parts.settle()

    def states(self) -> dict[str, str]:
        """State of each prefix in words."""
        return {one.prefix: one.text for one in self.runner.statistics().targets}

    async def ask(self, prefix: str, message: str, *, head: Head = BARE, predict: int = 2) -> Timings:
        """A user's chat request through a template, on the way that the front takes."""
        filled = self.catalogue.current(prefix)
        *first, last = template_pieces(head, filled)
        whole = msgspec.structs.replace(last, data=last.data + message.encode(), marks=(len(last.data),))
        want = self.parts.keeper.want([*first, whole], prefix=prefix, version=filled.version)
        grant = await self.parts.gate.acquire(key=want)
        complete = False
        try:
            prepared = await self.parts.keeper.prepare(want, grant)
            body = chat(head, filled.fill(message), extra={"max_tokens": predict, "temperature": 0})
            response = await self.parts.pool.request("POST", b"/v1/chat/completions", [], body)
            tail = await response.read()
            assert response.status == 200, tail
            timings = read_answer(tail, path="/v1/chat/completions").timings
            complete = True
        finally:
            self.parts.keeper.served(want, prepared, timings if complete else None, complete=complete)
            grant.release(cut=not complete)
        return timings


@asynccontextmanager
async def warm_rig(
    engine: EngineProcess, folder: Path, texts: dict[str, str], *, kv: Any = None, **config: Any
) -> AsyncIterator[WarmRig]:
    """A running warm-up; `kv` and `config` are keys of those sections. Ends without a task or a grant left."""
    async with rig(engine, **(kv or {})) as parts:
        made = WarmRig(parts, folder, texts, **config)
        task = aio.spawn(made.runner.run(), name="warm-up")
        try:
            await made.attach()
            yield made
        finally:
            await aio.finish([task])
        assert parts.gate.idle, "the warm-up left a grant behind"
