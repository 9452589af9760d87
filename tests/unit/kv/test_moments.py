"""The background service: the right moment, after all users, and nothing left over when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from bioproxy import aio
from bioproxy.config.schema import Kv
from bioproxy.errors import BioproxyError
from bioproxy.events import Bus
from bioproxy.gate.gate import Gate, Grant
from bioproxy.kv.actions import Actions
from bioproxy.kv.attaching import Attaching
from bioproxy.kv.chat_template import ChatTemplate
from bioproxy.kv.decisions import Decisions
from bioproxy.kv.moments import Moments
from bioproxy.kv.resident import Resident, Residents
from bioproxy.kv.restorer import Restorer
from bioproxy.kv.saver import Pause, Saver
from bioproxy.kv.shelves import Tenant
from support.config_files import settings

NEVER = 1000.0


class Bench(Moments):
    """The loops on a real gate, with one slot that is worth a save until it was saved."""

    def __init__(self, *, save_after: float = 0.0, save_every: float = NEVER, tick: float = NEVER) -> None:
        self.place = Resident(0)
        self.place.since = time.monotonic()
        self.unsaved = True
        self.saved, self.looked = asyncio.Event(), asyncio.Event()
        self.exclusive = False
        self.filled = 0
        config, residents = Kv(save_after=save_after, save_every=save_every), Residents()
        tenant = Tenant(config=config, bus=Bus())
        decisions, engine = Decisions(config, tenant), cast("Any", None)
        saver, restorer = Saver(engine, tenant, Pause(tenant)), Restorer(engine, tenant, decisions)
        actions = Actions(engine, saver, restorer, residents, decisions)
        template = ChatTemplate(engine, tenant, residents)
        super().__init__(Gate(settings()), actions, Attaching(actions), template, tick=tick)

    def growing(self) -> list[Resident]:
        return [self.place] if self.unsaved else []

    async def save_idle(self, grant: Grant) -> int:
        if not self.growing():
            return 0
        self.exclusive = grant.exclusive
        self.unsaved = False
        self.saved.set()
        return 1

    async def fill(self) -> int:
        self.filled += 1
        return 0

    def has_filled(self, times: int) -> bool:
        return self.filled == times

    async def look_after(self) -> None:
        self.looked.set()

    def start(self) -> asyncio.Task[None]:
        return aio.spawn(self.run(), name="idle saves")


async def until(condition: Callable[[], bool]) -> None:
    async def look() -> bool | None:
        return condition() or None

    assert await aio.poll(look, interval=0.002, deadline=30)


async def test_what_grew_is_saved_alone_on_the_engine() -> None:
    """Under an exclusive grant, which is given back afterwards."""
    bench = Bench()
    task = bench.start()
    bench.grown.set()
    await bench.saved.wait()
    await until(lambda: bench.gate.idle)
    assert bench.exclusive
    await aio.finish([task])


async def test_a_running_request_is_waited_for() -> None:
    """The save stands in the queue behind it."""
    bench = Bench(save_every=0.0)
    grant = await bench.gate.acquire()
    task = bench.start()
    bench.grown.set()
    await until(lambda: bool(bench.gate.queue.waiting["background"]))
    assert not bench.saved.is_set()
    grant.release()
    await bench.saved.wait()
    await aio.finish([task])


async def test_what_is_not_worth_it_any_more_is_not_saved() -> None:
    """While it waited for the moment, the conversation was saved by another task."""
    bench = Bench(save_after=0.05)
    task = bench.start()
    bench.grown.set()
    await until(lambda: not bench.grown.is_set())
    bench.unsaved = False
    await bench.gate.wait_idle(0.1)
    assert not bench.saved.is_set()
    await aio.finish([task])


async def test_slots_are_filled_when_they_may_be_empty() -> None:
    """Once each time that `emptied` is set."""
    bench = Bench()
    task = bench.start()
    for times in (1, 2):
        bench.emptied.set()
        await until(partial(bench.has_filled, times))
    await aio.finish([task])


async def test_ending_it_leaves_no_ticket() -> None:
    """Cancelled while it waits for a grant: the gate is as it was."""
    bench = Bench(save_every=0.0)
    grant = await bench.gate.acquire()
    task = bench.start()
    bench.grown.set()
    await until(lambda: bool(bench.gate.queue.waiting["background"]))
    await aio.finish([task])
    grant.release()
    assert bench.gate.idle


async def test_a_refused_grant_is_no_fault_of_the_service() -> None:
    """At the shutdown the gate refuses who waits; the shutdown saves by itself."""
    bench = Bench(save_every=0.0)
    grant = await bench.gate.acquire()
    running = bench.start()
    bench.grown.set()
    await until(lambda: bool(bench.gate.queue.waiting["background"]))
    bench.gate.refuse(BioproxyError("bioproxy is shutting down"))
    await until(lambda: not bench.gate.queue.anyone and not bench.gate.waiters)
    assert not running.done()
    grant.release()
    await aio.finish([running])
    assert running.cancelled()
