"""What belongs to one model and outlives its processes: connections, gate, KV cache, warm-up, templates.

It is the same for an engine that we attach to, one that we start, and each of many models. What differs is who starts
the process, and that is outside. `engine_ready` finds out what an engine is before any request reaches it; `services`
are the tasks that look after it. A request gets all that it needs of its engine from here.

`attach` and `detach` are the two ends of one life of a process (models/unit.py calls them): between them the services
run; outside of them the gate is closed, the pool takes no request, and the cache is known from the disk only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import msgspec

from bioproxy import aio
from bioproxy.config.addresses import is_loopback
from bioproxy.config.schema import Config, Kv
from bioproxy.config.settings import Settings
from bioproxy.engines.attach import Attachment
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.listener import works_here
from bioproxy.engines.llama import Llama
from bioproxy.errors import BioproxyError, EngineUnavailable, in_words
from bioproxy.events import Bus, ServiceFailed
from bioproxy.gate.forecast import most_tokens, rest, usual
from bioproxy.gate.gate import Gate, Owners
from bioproxy.gate.queue import Ticket
from bioproxy.keys import everyone
from bioproxy.kv.budget import budgets_of
from bioproxy.kv.keeper import Keeper, Want
from bioproxy.kv.policy import Measured
from bioproxy.kv.shelves import Shelves
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.warmup.runner import Runner
from bioproxy.wire.upstream import Pool

log = logging.getLogger(__name__)

LAST_CHUNK = 1.0  # seconds at most for what a warm-up has the engine do when its model has to go
SETTLE_SECONDS = 2.0  # kv-rule 5: `/slots` no more often than that
UNLIMITED = 1_000_000  # requests at once on an engine that has no slots
KNOWN = 60.0  # seconds to find out what a llama-server is
ASKED = 2.0  # seconds for the one question whether it is a llama-server

Service = Callable[[], Awaitable[None]]


class Price(msgspec.Struct, frozen=True):
    """What it would take to have a cache again.

    `tokens`: what the cache holds; `prefill`: seconds per token (None: never measured); `restore`: seconds to read them
    back from disk (None: they are not there).
    """

    tokens: int = 0
    prefill: float | None = None
    restore: float | None = None


def everyone_of(config: Config) -> str | None:
    """The group of all that may ask; "" without keys, None if requests of several groups may come."""
    return everyone(config.api_keys)


def guarded(services: Mapping[str, Service], bus: Bus, *, model: str = "") -> list[asyncio.Task[None]]:
    """Start services that outlive their own faults, which are counted; their names begin with `model`."""

    def fault(name: str, error: Exception) -> None:
        bus.publish(ServiceFailed(name=name, error=in_words(error)))

    prefix = f"{model} " if model else ""
    named = {f"{prefix}{name}": service for name, service in services.items()}
    return [aio.spawn(aio.guarded(service, name=name, on_fault=fault), name=name) for name, service in named.items()]


class Station:
    """The parts of one model.

    `owned`: the process is a child of ours, so a request that it lost before the first byte is worth a second try; who
    starts it sets `attachment.expect_pid` and `on_stuck`. `model` is its ID among many, "" if it is the only one.
    `limit` bounds how many requests run at once on an engine without slots (0: no bound). `asks` False: nothing is
    asked of it, whatever it is. `key` is the one that the engine wants; `scope` keeps its pins apart from those of
    models with other templates.
    `owners` counts what runs of keys with `max_running`, also on the engines of other models.
    `looked_after`: its attachment looks for the engine by itself, whose process may end and be another one without the
    schedule; an engine of many models is looked for after a start.
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
        model: str = "",
        limit: int = 0,
        asks: bool = True,
        scope: bytes = b"",
        looked_after: bool = True,
        owners: Owners | None = None,
    ) -> None:
        self.pool, self.settings, self.bus = pool, settings, bus
        self.catalogue, self.pins, self.heads = catalogue, pins, heads
        self.model, self.owned, self.limit, self.asks = model, owned, limit, asks
        self.key, self.scope, self.looked_after = key, scope, looked_after
        self.llama = Llama(pool, key=key)
        self.gate = Gate(settings, owners=owners)
        self.keeper = Keeper(
            config=kv,
            bus=bus,
            llama=self.llama,
            gate=self.gate,
            shelves=shelves,
            model=model,
            everyone=partial(settings.made, everyone_of),
            versions=catalogue.versions,
            budgets=partial(settings.made, budgets_of),
        )  # fmt: skip
        self.gate.extends = self.keeper.extends
        self.gate.cost = self.cost
        self.measured = Measured()
        self.on_stuck: Callable[[str], Awaitable[None]] = self.no_remedy
        self.attachment = self.one_attachment()
        self.runner = self.one_runner()
        self.keeper.on_new_prompts = self.runner.renewed
        self.wants: Sequence[Want] = ()
        self.restored = 0.0
        self.restoring: Callable[[], None] = lambda: None  # called when a restore begins
        self.lives = 0  # of its process that have ended, as far as somebody ended them
        self.tasks: list[asyncio.Task[None]] = []
        self.warming: list[asyncio.Task[None]] = []

    def one_attachment(self) -> Attachment:
        """The engine's owner, which tells us when it comes, goes, or hangs."""
        timeout = self.settings.config.stall_timeout
        attachment = Attachment(self.llama, bus=self.bus, stall_timeout=timeout)
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

    # how long still

    def cost(self, ticket: Ticket, now: float) -> float:
        """Seconds that a request needs of the engine, or still needs if it runs: its prompt, then its answer."""
        want, body, tail = ticket.key, ticket.body, ticket.tail
        if not isinstance(want, Want) or tail is None or not want.size:
            return usual(self.gate.queue)(ticket, now)
        prompt, answer = self.prefill(want), self.answer(most_tokens(body))
        if ticket not in self.gate.queue.running:
            return (prompt + answer) / self.gate.queue.bias  # by which the gate's forecast errs; it knows that itself
        if tail.first is not None:
            return rest(answer, time.monotonic() - tail.first)
        if body is not None and body.stream:
            return rest(prompt, now - ticket.granted) + answer
        return rest(prompt + answer, now - ticket.granted)

    def prefill(self, want: Want) -> float:
        """Seconds that the engine would be at a prompt now."""
        return self.measured.tokens(self.keeper.missing(want)) * self.keeper.speeds.prefill * self.gate.queue.bias

    def answer(self, most: int = 0) -> float:
        """Seconds that it would be at an answer of `most` tokens at most (0: any number)."""
        return self.measured.seconds(most) * self.gate.queue.bias

    # services

    def look_after(self) -> None:
        """Start what looks after the engine while it is there."""
        services = {"attachment": self.attachment.run, "kv": self.keeper.run, "settling": self.settle}
        self.tasks = guarded(services, self.bus, model=self.model)
        self.warming = guarded({"warm-up": self.runner.run}, self.bus, model=self.model)

    # the engine's life, as the attachment tells it

    async def engine_ready(self, facts: EngineFacts) -> None:
        """An engine is there, perhaps another one: take its measure before anyone is let at it."""
        self.gate.close("the engine is being looked at")
        self.pool.drop_idle()
        self.gate.resize(facts.slots)
        await self.keeper.attached(facts, alone=not self.gate.running)
        self.runner.attached(facts)
        self.gate.settled()
        waiting = () if self.gate.running else (ticket.key for ticket in self.gate.queue.tickets())
        wants = self.wants or [key for key in waiting if isinstance(key, Want)]  # they will all be let in at once
        if wants:
            self.restoring()
            self.restored = await self.keeper.moments.bring_back(wants)
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
        """After a client left in mid-answer, look at the slots now and then until they are seen idle (kv-rule 4)."""
        while True:
            await self.gate.wait_draining()
            await asyncio.sleep(SETTLE_SECONDS)
            if self.gate.draining and not self.gate.at_work:
                cuts = self.gate.cuts
                if await self.all_idle() and cuts == self.gate.cuts:  # what was cut meanwhile is not in that answer
                    self.gate.settled()

    async def settle_other(self) -> None:
        """The same for an engine that has no slots to look at: there is nothing that an action could spoil."""
        while True:
            await self.gate.wait_draining()
            self.gate.settled()

    async def all_idle(self) -> bool:
        """Whether the engine says that none of its slots works; False if it does not say."""
        try:
            slots = await self.llama.slots()
        except BioproxyError as error:
            log.debug("cannot see whether the engine is idle: %s", error.message)
            return False
        return bool(slots) and not any(slot.is_processing for slot in slots)

    @property
    def other(self) -> bool:
        """Whether the engine is no llama-server, or was not met yet."""
        facts = self.attachment.facts
        return facts is None or not facts.build

    # one life of its process

    async def attach(self, wants: Sequence[Want], restoring: Callable[[], None]) -> float:
        """The process is healthy: find out what it is, and bring back what `wants` need.

        `restoring` is called before that second step. Returns the seconds of the restore.
        """
        if not await self.is_llama():
            follow = partial(self.attachment.follow_other, self.seen)
            self.tasks = guarded({"silence": follow, "settling": self.settle_other}, self.bus, model=self.model)
            self.keeper.attaching.met_other()
            self.gate.resize(self.limit or UNLIMITED)
            self.gate.settled()
            self.gate.open()
            return 0.0
        self.wants, self.restored, self.restoring = wants, 0.0, restoring
        await self.attachment.look()
        self.look_after()
        try:
            async with asyncio.timeout(KNOWN):
                await self.attachment.wait_ready()
        except TimeoutError:
            raise EngineUnavailable(
                f"it is healthy, but was not met within {KNOWN:.0f} s: {self.attachment.reason}"
            ) from None
        return self.restored

    def seen(self) -> EngineFacts:
        """What can be seen of a process that is no llama-server: its processor time, if it does its work itself."""
        origin, pid = self.pool.origin, self.attachment.expect_pid()
        here = pid is not None and is_loopback(origin.host) and works_here(pid, origin.port)
        return EngineFacts(url=str(origin), slots=0, pid=pid if here else None)

    async def is_llama(self) -> bool:
        """Whether it is a llama-server: by what it answers, whatever its program is called."""
        if not self.asks:
            return False
        try:
            async with asyncio.timeout(ASKED):
                return "build_info" in await self.llama.props()
        except (BioproxyError, TimeoutError) as error:
            log.debug("%s is no llama-server: %s", self.model, in_words(error))
            return False

    async def save(self, limit: float) -> float:
        """Before a stop: end the warm-up, then save what pays within `limit` seconds. Returns how long that took."""
        started, named = time.monotonic(), self.model or "the engine"
        self.runner.gone()  # no chunk is begun; one that is cut off would keep slot actions away for seconds
        await self.gate.wait_for_end("background", min(limit, LAST_CHUNK))
        if not await self.end_warming(limit):
            log.warning("%s did not end a warm-up's save within %.3g s: what it holds is not saved", named, limit)
        elif any(ticket.work != "background" for ticket in self.gate.queue.running):
            log.info("%s is stopped in the middle of requests: what it holds is not saved", named)
        elif self.attachment.facts is not None and self.attachment.state == "ready":
            await self.keeper.moments.save_before_stop(limit=limit - (time.monotonic() - started))
        return time.monotonic() - started

    async def end_warming(self, limit: float) -> bool:
        """Whether it ended. A slot action of it is shielded, and on an engine that hangs `detach` is what ends it."""
        for task in self.warming:
            task.cancel()
        late = (await asyncio.wait(self.warming, timeout=limit))[1] if self.warming else ()
        return not late

    async def detach(self, reason: str) -> None:
        """The process will be stopped, or is gone: no request reaches it any more, and our connections close.

        The pool is closed before the services have ended: a slot action is shielded against its caller, and may hang.
        (llama-server does not exit while a connection is open: facts, 0.10.) Without a `reason` nothing is told of it.
        """
        self.gate.close(reason)
        self.lives += 1
        for task in (*self.warming, *self.tasks):
            task.cancel()
        await self.pool.close()
        await aio.finish([*self.warming, *self.tasks])
        self.tasks, self.warming = [], []
        if reason:
            self.attachment.ended(reason)
        self.gate.settled()

    def price(self) -> Price:
        """What it would take to have the cache again."""
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
