"""Everything that goes with one engine: connections, gate, KV cache, its owner, warm-up.

The same for an engine that we attach to, one that we start, and each of many models: what differs is who starts the
process, and that is outside. `engine_ready` takes the measure of an engine before anyone is let at it; `services` are
the tasks that look after it.

With many models a station outlives the processes of its model. `attach` and `detach` are the two ends of one life
(models/unit.py calls them): between them the services run; outside of them the gate is closed, the pool takes no
request, and what is known of the cache stands on disk only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.config.settings import Settings
from bioproxy.engines.attach import Attachment
from bioproxy.engines.llama import EngineFacts, Llama
from bioproxy.errors import BioproxyError, EngineUnavailable
from bioproxy.events import Bus, ServiceFailed
from bioproxy.front.engine import Engine
from bioproxy.gate.gate import Gate
from bioproxy.keys import everyone
from bioproxy.kv.keeper import Keeper, Want
from bioproxy.kv.shelves import Shelves
from bioproxy.models.costs import Price
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.runner import Runner
from bioproxy.wire.upstream import Pool

log = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0  # kv-rule 5: `/slots` no more often than that
UNLIMITED = 1_000_000  # requests at once on an engine that has no slots
KNOWN = 60.0  # seconds to find out what a llama-server is
ASKED = 2.0  # seconds for the one question whether it is a llama-server

Service = Callable[[], Awaitable[None]]


class Station:
    """The parts of one engine.

    `owned`: its process is ours; `expect_pid` tells its pid. `model` is its ID among many, "" where it is the only one;
    `limit` bounds what runs at once on an engine without slots (0: nothing does). `asks` False: whatever it is, nothing
    is asked of it.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        settings: Settings,
        kv: Kv,
        key: str,
        bus: Bus,
        catalogue: Catalogue,
        pins: Pins,
        heads: Heads,
        shelves: Shelves | None,
        owned: bool,
        expect_pid: Callable[[], int | None] = lambda: None,
        model: str = "",
        limit: int = 0,
        asks: bool = True,
    ) -> None:
        self.pool, self.settings, self.bus, self.catalogue = pool, settings, bus, catalogue
        self.model, self.owned, self.limit, self.asks = model, owned, limit, asks
        self.heads = heads
        self.llama = Llama(pool, key=key)
        self.gate = Gate(settings)
        self.keeper = Keeper(
            config=kv,
            bus=bus,
            llama=self.llama,
            shelves=shelves,
            model=model,
            everyone=lambda: everyone(settings.config.api_keys),
            versions=catalogue.versions,
        )  # fmt: skip
        self.keeper.bind_gate(self.gate)
        self.gate.extends = self.keeper.extends
        self.on_stuck: Callable[[str], Awaitable[None]] = self.no_remedy
        self.attachment = self.one_attachment(expect_pid)
        self.runner = self.one_runner()
        self.keeper.on_new_prompts = self.runner.renewed
        self.engine = Engine(
            pool=pool,
            gate=self.gate,
            keeper=self.keeper,
            attachment=self.attachment,
            catalogue=catalogue,
            pins=pins,
            heads=heads,
            owned=owned,
            key=key,
            too_long=self.runner.too_long,
        )
        self.wants: Sequence[Want] = ()
        self.restored = 0.0
        self.restoring: Callable[[], None] = lambda: None  # called when a restore begins
        self.tasks: list[asyncio.Task[None]] = []
        self.warming: list[asyncio.Task[None]] = []

    def one_attachment(self, expect_pid: Callable[[], int | None]) -> Attachment:
        """The engine's owner, which tells us when it comes, goes, or hangs."""
        timeout = self.settings.config.stall_timeout
        attachment = Attachment(self.pool, bus=self.bus, llama=self.llama, expect_pid=expect_pid, stall_timeout=timeout)
        self.pool.on_lost = lambda: attachment.suspect("it closed a connection that lay idle")
        attachment.on_ready = self.engine_ready
        attachment.on_gone = self.engine_gone
        attachment.on_stuck = self.engine_stuck
        attachment.on_emptied = self.keeper.unknown
        return attachment

    def one_runner(self) -> Runner:
        """The warm-up, which knows gate, cache, templates and engine by what they can do."""
        return Runner(
            settings=self.settings,
            gate=self.gate,
            keeper=self.keeper,
            catalogue=self.catalogue,
            engine=self.llama,
            heads=self.heads,
            bus=self.bus,
        )

    # services

    def services(self) -> dict[str, Service]:
        """What looks after the engine while it is there; each is to be guarded."""
        return {"attachment": self.attachment.run, "kv": self.keeper.run, "settling": self.settle}

    def guarded(self, services: dict[str, Service]) -> list[asyncio.Task[None]]:
        """Start services that outlive their own faults."""
        prefix = f"{self.model} " if self.model else ""
        return [
            aio.spawn(aio.guarded(service, name=f"{prefix}{name}", on_fault=self.fault), name=f"{prefix}{name}")
            for name, service in services.items()
        ]

    def fault(self, name: str, error: Exception) -> None:
        """Count a service's fault; it starts again by itself."""
        self.bus.publish(ServiceFailed(name=name, error=str(error)))

    # the engine's life, as the attachment tells it

    async def engine_ready(self, facts: EngineFacts) -> None:
        """An engine is there, perhaps another one: take its measure before anyone is let at it."""
        self.gate.close("the engine is being looked at")
        self.pool.drop_idle()
        self.gate.resize(facts.slots)
        await self.keeper.attached(facts, alone=not self.gate.running)
        self.runner.attached(facts)
        self.gate.settled()
        if self.wants:
            self.restoring()
            self.restored = await self.keeper.bring_back(self.wants)
            self.wants = ()
        self.gate.open()

    def engine_gone(self, reason: str) -> None:
        """It went away. Requests for an engine of ours wait for it; one that we only attach to answers for itself."""
        self.keeper.gone(reason)
        self.runner.gone()
        if self.owned:
            self.gate.close(reason)

    async def engine_stuck(self, reason: str) -> None:
        """It computes nothing any more."""
        self.gate.close(f"the engine is stuck: {reason}")
        await self.on_stuck(reason)

    async def no_remedy(self, reason: str) -> None:
        """An engine that is not ours is only not ready."""
        log.error("the engine at %s is stuck, and it is not ours to start again: %s", self.pool.origin, reason)

    async def settle(self) -> None:
        """Where a client left in mid-answer, look at the slots now and then until they are seen idle (kv-rule 4)."""
        while True:
            await self.gate.wait_draining()
            await asyncio.sleep(SETTLE_SECONDS)
            if self.gate.draining and self.gate.idle:
                cuts = self.gate.cuts
                if await self.all_idle() and cuts == self.gate.cuts:  # what was cut meanwhile is not in that answer
                    self.gate.settled()

    async def all_idle(self) -> bool:
        """Whether the engine says that none of its slots works; False where it does not say."""
        try:
            slots = await self.llama.slots()
        except BioproxyError as error:
            log.debug("cannot see whether the engine is idle: %s", error.message)
            return False
        return bool(slots) and not any(slot.is_processing for slot in slots)

    async def last_save(self, seconds: float) -> None:
        """Save what is resident and pays, in `seconds` at most; one that is gone holds nothing."""
        if not self.keeper.growing():
            return
        try:
            async with asyncio.timeout(seconds):
                with await self.gate.acquire(work="background", exclusive=True, last=True) as grant:
                    await self.keeper.save_idle(grant)
        except TimeoutError:
            log.warning("what is resident was not saved: the engine was not free within kv.save_timeout")

    # one life among many (models.unit.Equipment)

    @property
    def asker(self) -> Pool:
        """Who sends requests to the engine."""
        return self.pool

    def prepare(self) -> None:
        """A process is about to be started: connections may be opened again."""
        self.pool.reopen()

    async def attach(self, wants: Sequence[Any], restoring: Callable[[], None]) -> float:
        """The process is healthy: find out what it is, bring back what `wants` need; seconds of the restore."""
        if not await self.is_llama():
            self.gate.resize(self.limit or UNLIMITED)
            self.gate.settled()
            self.gate.open()
            return 0.0
        self.wants = [want for want in wants if isinstance(want, Want)]
        self.restored, self.restoring = 0.0, restoring
        await self.attachment.look()
        self.tasks = self.guarded(self.services())
        self.warming = self.guarded({"warm-up": self.runner.run})
        try:
            async with asyncio.timeout(KNOWN):
                await self.attachment.wait_ready()
        except TimeoutError:
            raise EngineUnavailable(
                f"it is healthy, but was not met within {KNOWN:.0f} s: {self.attachment.reason}"
            ) from None
        return self.restored

    async def is_llama(self) -> bool:
        """Whether it is a llama-server: by what it answers, whatever its program is called."""
        if not self.asks:
            return False
        try:
            async with asyncio.timeout(ASKED):
                return "build_info" in await self.llama.props()
        except (BioproxyError, TimeoutError) as error:
            log.debug("%s is no llama-server: %s", self.model, error)
            return False

    async def save(self, limit: float) -> float:
        """Before a stop: end the warm-up, then save what pays within `limit` seconds; the seconds that took."""
        started = time.monotonic()
        await aio.finish(self.warming, deadline=limit)
        if any(ticket.work != "background" for ticket in self.gate.queue.running):
            log.info("%s is stopped in the middle of requests: what it holds is not saved", self.model)
        elif self.attachment.facts is not None and self.attachment.state == "ready":
            await self.keeper.save_before_stop(self.gate, limit=limit - (time.monotonic() - started))
        return time.monotonic() - started

    async def detach(self, reason: str) -> None:
        """The process will be stopped or is gone: nobody gets at it, our connections close.

        Before the services have ended: a slot action under way is shielded against its caller, and may hang.
        """
        self.gate.close(reason)
        for task in (*self.warming, *self.tasks):
            task.cancel()
        await self.pool.close()
        await aio.finish([*self.warming, *self.tasks])
        self.tasks, self.warming = [], []
        self.attachment.lose("absent", reason)
        self.gate.settled()

    def price(self) -> Price:
        """What the cache would cost to have again."""
        if self.attachment.state != "ready":
            return Price()
        slots = [slot for slot in self.keeper.residents.slots if slot.tokens]
        tokens, speeds = sum(slot.tokens for slot in slots), self.keeper.speeds
        saved = bool(slots) and all(slot.saved for slot in slots)
        return Price(tokens, speeds.prefill, tokens * speeds.token_bytes / speeds.restore if saved else None)

    def adapt(self, *, limit: int) -> None:
        """Take over another bound for an engine without slots."""
        self.limit = limit
        if self.attachment.facts is None and self.gate.queue.open:
            self.gate.resize(limit or UNLIMITED)
