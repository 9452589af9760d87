"""A keeper before a real or fake engine, asked as the front asks it: want, grant, prepare, completion, served.

Prompts are rows of texts, one per piece; the engine gets them joined, so a common row of texts is a common beginning of
tokens. Whatever is read faster than evaluated pays, be it a few tokens: how fast this machine is decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.engines.answers import Timings, read_answer
from bioproxy.engines.discover import Discovery, discover, process_of
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.llama import Llama
from bioproxy.engines.pace import Pace
from bioproxy.events import Bus, Event
from bioproxy.gate.gate import Gate
from bioproxy.kv.keeper import Keeper, Prepared, Want
from bioproxy.prompt import Piece
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.engine_process import EngineProcess
from support.config_files import settings

E = TypeVar("E", bound=Event)
WORDS = ["stone", "river", "cloud", "amber", "silent", "copper", "meadow", "winter", "lantern", "harbour", "violet"]


def text(words: int, seed: str = "") -> str:
    """About `words` tokens that begin in their own way."""
    return f"{seed}:" + "".join(f" {WORDS[number * 7 % len(WORDS)]}{number % 89}" for number in range(words))


class HeldCommit:
    """A `step` that holds each commit, ten seconds at most, until `go_on` is set; `blocked` is set once one is held."""

    def __init__(self) -> None:
        self.blocked, self.go_on = threading.Event(), threading.Event()

    def __call__(self, name: str) -> None:
        if name == "private":
            self.blocked.set()
            self.go_on.wait(10)


class Asked(msgspec.Struct):
    """One request's outcome."""

    prepared: Prepared
    timings: Timings
    answer: str

    @property
    def cached(self) -> int:
        """Tokens that the engine had."""
        return self.timings.cached or 0

    @property
    def evaluated(self) -> int:
        """Tokens that it computed."""
        return self.timings.evaluated or 0


class Rig:
    """One keeper with its gate, client and bus, attached to `engine`."""

    def __init__(self, engine: EngineProcess, config: Kv, *, known: dict[str, Any], **options: Any) -> None:
        self.engine = engine
        self.known = known
        self.config = config
        self.bus = Bus()
        self.events: list[Event] = []
        self.bus.subscribe(Event, self.events.append)
        self.pool = Pool(parse_origin(engine.url))
        self.llama = Llama(self.pool)
        self.discovery = Discovery()
        self.gate = Gate(settings(queue_limit=100, queue_timeout=30.0))
        self.keeper = Keeper(config=config, bus=self.bus, llama=self.llama, gate=self.gate, **options)

    async def facts(self, **changes: Any) -> EngineFacts:
        """What the engine is now."""
        self.pool.drop_idle()
        props = await self.llama.props()
        process = await process_of(self.pool.origin, self.engine.pid)
        found = await discover(self.llama, props, process=process, known=self.discovery)
        return msgspec.structs.replace(found, **(self.known | changes))

    async def attach(self, **changes: Any) -> None:
        """Attach, as when the engine became ready."""
        self.llama.pace = Pace(self.llama.ask)  # a test does not wait for the pace of an engine that is gone
        await self.keeper.attached(await self.facts(**changes))

    async def close(self) -> None:
        """Give everything back."""
        await self.keeper.close()
        await self.llama.pace.close()
        await self.pool.close()

    def want(self, *texts: str, template: bool = False, marks: tuple[int, ...] = (), **more: Any) -> Want:
        """Name a prompt; `template`: the first text is a template's static beginning (or `marks` tells its end)."""
        first = (len(texts[0]),) if template else marks
        pieces = [Piece(f"piece {n}", one.encode(), () if n else first) for n, one in enumerate(texts)]
        return self.keeper.want(pieces, **more)

    async def ask(self, *texts: str, predict: int = 4, complete: bool = True, **more: Any) -> Asked:
        """One request through gate and keeper, to its end; `more` as `want` takes it."""
        body = msgspec.json.encode({"prompt": "".join(texts), "n_predict": predict, "temperature": 0})
        want = self.want(*texts, again=("/completion", body), **more)
        grant = await self.gate.acquire(key=want)
        try:
            prepared = await self.keeper.prepare(want, grant)
            response = await self.pool.request("POST", b"/completion", [], body)
            raw = await response.read()
            timings = read_answer(raw, path="/completion").timings
            self.keeper.served(want, prepared, timings, complete=complete)
            await self.keeper.conclude(want, grant)
        finally:
            grant.release()
        return Asked(prepared, timings, msgspec.json.decode(raw)["content"])

    async def warm(self, static: str, *, prefix: str = "@code", version: str = "1", settle: bool = True) -> bool:
        """Evaluate a template's static beginning and keep it, as a warm-up does."""
        want = self.want(static, template=True, prefix=prefix, version=version)
        tokens = (await self.llama.tokenize(static))[:-1]
        grant = await self.gate.acquire(work="background", key=want, exclusive=True)
        try:
            prepared = await self.keeper.prepare(want, grant)
            timings = await self.llama.prefill(tokens)
            self.keeper.served(want, prepared, timings, complete=True)
            kept = await self.keeper.keep(want, len(tokens), grant, seconds=(timings.prefill or 0.0) + 1.0)
        finally:
            grant.release()
        if settle:
            await self.settle()
        return kept

    async def save_idle(self, *, settle: bool = True) -> int:
        """Save what is resident, as after some idle seconds, and wait until it is on disk (`settle`)."""
        grant = await self.gate.acquire(work="background", exclusive=True)
        try:
            count = await self.keeper.moments.save_idle(grant)
        finally:
            grant.release()
        if settle:
            await self.settle()
        return count

    async def restart(self, wants: Sequence[Want] | None = None) -> None:
        """Stop the engine as a swap does, start it again, and bring back what `wants` need (None: nothing is).

        An empty row: nobody asks, and nobody will until that is done.
        """
        await self.keeper.moments.save_before_stop(limit=10)
        self.keeper.gone("stopped")
        await self.engine.restart()
        await self.attach()
        if wants:
            await self.keeper.moments.bring_back(wants)
        elif wants is not None:
            await self.keeper.moments.fill()

    async def settle(self) -> None:
        """Wait for commits."""
        await self.keeper.saver.settle(10)

    def heard(self, kind: type[E]) -> list[E]:
        """The events of one class so far."""
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def rig(
    engine: EngineProcess, folder: Path | None = None, *, options: Any = None, known: Any = None, **config: Any
) -> AsyncIterator[Rig]:
    """An attached keeper for `engine`; `config` are keys of `kv`, `options` arguments of the keeper.

    `known`: what is believed of the engine instead of what it tells.
    """
    values = {"min_seconds": 0.0, "min_free": 0, "directory": str(folder or ""), **config}
    made = Rig(engine, msgspec.convert(values, Kv), known=known or {}, **(options or {}))
    try:
        await made.attach()
        yield made
    finally:
        await made.close()
