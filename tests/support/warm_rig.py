"""A warm-up with everything real around it: gate, keeper, catalogue, engine's client, before a fake or real engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.engines.answers import Timings, read_answer
from bioproxy.events import Event
from bioproxy.prompt import Head
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.expand import template_pieces
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.prefix import chat
from bioproxy.warmup.runner import Runner
from fakes.engine_process import EngineProcess
from support.kv_rig import Rig, rig, text
from support.leaks import until
from support.settings import settings

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
        async with asyncio.timeout(15):
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
