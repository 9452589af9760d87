"""The owner of one engine's state: waits for it, notices that it went away, came back, or is another one now.

    absent ──answers──► loading ──on_ready returned──► ready
      ▲                   │  ▲                          │ │
      └──── refused ──────┘  └── 503, other process, ───┘ └─ no sign of life ─► stuck ──a token came──► ready
                                 other model

`absent`: nothing listens, or what listens is no HTTP. `loading`: it answers 503, or it was just found and `on_ready`
(fingerprint, locks, probe file: the station's business) has not returned. Only `ready` opens the gate. `stuck`: it
takes connections and computes nothing; it must produce one token before it is ready again (of another kind: its health
must be good). `NEXT` says which state may follow which.

One task looks, every two seconds while all is well, with `GET /props`: it is answered beside the work, does not wake a
sleeping server, is 503 while a model loads, and tells which model it is. Requests that fail say `suspect`, and the look
is taken at once; one that saw the engine load or change says `meet_again`. That it is another process than before is
seen in /proc if we may look there, else in `media_marker`, which llama-server draws anew at each start. `generation`
counts processes and models: what was resident in an earlier one is gone.

Nothing else decides about the engine; others report, read `state` to inform, and wait with `wait_ready`.

One of many models that is no llama-server is not asked what it is (`follow_other`): it stays `absent` in here, and only
its silence and the machine's sleep are watched.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

import msgspec

from bioproxy import aio
from bioproxy.clocks import suspended
from bioproxy.engines import listener
from bioproxy.engines.discover import IDENTIFYING, Discovery, Identity, difference, discover, process_of
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.listener import Listener
from bioproxy.engines.llama import Llama
from bioproxy.engines.stall import Stall, StallStatistics
from bioproxy.errors import BioproxyError, EngineProtocolError, EngineRefused, EngineUnavailable, OutOfFiles, in_words
from bioproxy.events import Bus, EngineChanged
from bioproxy.wire.upstream import NO_FILES

Json = Any
log = logging.getLogger(__name__)

EAGER = 0.5  # seconds between looks at an engine that is not ready
PATIENCE = 3  # looks without an answer, one after another, before an engine counts as stuck
SLEPT = 10.0  # seconds that boot time may run ahead of monotonic time before the machine must have slept
FIRST_TOKEN = 30.0  # seconds for the token that an engine owes us after it was stuck


class State(StrEnum):
    """What an engine is to those who wait for it."""

    ABSENT = "absent"
    LOADING = "loading"
    READY = "ready"
    STUCK = "stuck"


NEXT: dict[State, frozenset[State]] = {
    State.ABSENT: frozenset({State.LOADING}),
    State.LOADING: frozenset({State.ABSENT, State.READY}),
    State.READY: frozenset({State.ABSENT, State.LOADING, State.STUCK}),
    State.STUCK: frozenset({State.ABSENT, State.LOADING, State.READY}),
}


class AttachmentStatistics(msgspec.Struct, frozen=True):
    """The engine's state as `/status` tells it; `since` is unix time, `looks` how often it was looked at."""

    url: str
    state: State
    reason: str
    since: float
    generation: int
    looks: int
    stall: StallStatistics
    facts: EngineFacts | None


async def nothing(*_: Any) -> None:
    """What is called if the station did not set a callback."""


def no_files_left() -> bool:
    """Whether this process may open no further file: then /proc shows nothing."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except OSError as error:
        return error.errno in NO_FILES
    return False


class Attachment:
    """One engine, and its owner. `run` is the guarded service; the callbacks are set before it starts.

    `on_ready(facts)` is awaited before the state becomes `ready`, and may raise: then it is tried again.
    `on_gone(reason)` follows once for each time that it was ready. `on_stuck(reason)` is awaited when an engine
    computes nothing more. `on_emptied(reason)`: a slot of an engine that stays ready may hold something else now.
    `expect_pid`: the process of an engine that is ours. `slept` gives the seconds that the machine slept so far.
    """

    def __init__(
        self,
        llama: Llama,
        *,
        bus: Bus,
        expect_pid: Callable[[], int | None] = lambda: None,
        interval: float = 2.0,
        stall_timeout: float = 120.0,
        slept: Callable[[], float] = suspended,
    ) -> None:
        self.llama, self.pool = llama, llama.pool
        self.bus, self.expect_pid, self.slept = bus, expect_pid, slept
        self.interval = interval
        self.on_ready: Callable[[EngineFacts], Awaitable[None]] = nothing
        self.on_stuck: Callable[[str], Awaitable[None]] = nothing
        self.on_gone: Callable[[str], None] = lambda _reason: None
        self.on_emptied: Callable[[str], None] = lambda _reason: None
        self.stall = Stall(
            self.llama,
            timeout=stall_timeout,
            facts=lambda: self.facts if self.state is State.READY else self.other,
            on_stuck=self.stalled,
            on_poked=self.emptied,
        )
        self.state = State.ABSENT
        self.reason = "not looked at yet"
        self.blind = False  # nothing can be seen of the engine, for lack of files
        self.told = False  # the first state is news, too
        self.since = time.time()
        self.facts: EngineFacts | None = None
        self.other: EngineFacts | None = None  # what can be seen of one that is no llama-server, while it runs
        self.generation = 0
        self.identity: Identity | None = None
        self.discovery = Discovery()
        self.process: Listener | None = None  # as it was found by the newest look for it
        self.looks = self.unanswered = self.unseen = self.changes = 0
        self.asleep = slept()
        self.now = asyncio.Event()
        self.looked = asyncio.Event()  # the next look is over
        self.is_ready = asyncio.Event()

    def statistics(self) -> AttachmentStatistics:
        """State, reason, generation, and what the stall detection did."""
        stall = self.stall.statistics()
        url, facts = str(self.pool.origin), self.facts
        return AttachmentStatistics(url, self.state, self.reason, self.since, self.generation, self.looks, stall, facts)

    def suspect(self, reason: str) -> None:
        """Something went wrong with a request: look now."""
        log.debug("looking at the engine now: %s", reason)
        self.now.set()

    def meet_again(self, reason: str) -> None:
        """A request saw that it is loading, or is not what it was: nothing reaches it until it has been met anew."""
        self.lose(State.LOADING, reason)
        self.suspect(reason)

    def ended(self, reason: str) -> None:
        self.lose(State.ABSENT, reason)

    async def look_now(self) -> None:
        """Have it looked at, and wait for what came of it, half a second at most."""
        self.now.set()
        await aio.wait_first(self.looked, timeout=EAGER)

    async def wait_ready(self) -> EngineFacts:
        """Wait until the engine is ready; what it is."""
        while True:
            await self.is_ready.wait()
            if self.facts is not None:
                return self.facts

    async def run(self) -> None:
        """The service: look, for ever; and watch over silence."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follow(), name="engine looks")
                group.create_task(self.stall.run(), name="engine silence")
        finally:
            await self.llama.close()

    async def follow_other(self, see: Callable[[], EngineFacts]) -> None:
        """The service for one that is no llama-server; `see` blocks, and tells what can be seen of its processes."""
        self.other = await asyncio.to_thread(see)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.stall.run(), name="engine silence")
                while True:
                    await asyncio.sleep(self.interval)
                    await self.notice_sleep()
        finally:
            self.other = None

    async def follow(self) -> None:
        while True:
            self.now.clear()
            await self.notice_sleep()
            await self.look()
            self.looked.set()
            self.looked = asyncio.Event()
            await aio.wait_first(self.now, timeout=self.pause())

    def pause(self) -> float:
        """Seconds until the next look: a stuck engine is not asked for tokens in a hurry."""
        slow = {State.READY: self.interval, State.STUCK: 5 * self.interval}
        return slow.get(self.state, min(EAGER, self.interval))

    # looking

    async def look(self) -> None:
        """Look once, and draw the consequences."""
        self.looks += 1
        try:
            props = await self.props()
        except OutOfFiles as error:
            self.cannot_look(error.message)
        except EngineUnavailable as error:
            await self.missing(error)
        except EngineProtocolError as error:
            self.lose(State.ABSENT, f"what listens there speaks no HTTP: {error.message}")
        except EngineRefused as error:
            self.lose(State.LOADING if error.status == 503 else State.ABSENT, error.message)
        else:
            self.unanswered, self.blind = 0, False
            await self.answered(props)

    def cannot_look(self, reason: str) -> None:
        """Say once that nothing can be seen of the engine now: what was known of it stays."""
        if not self.blind:
            log.warning("cannot look at the engine: %s", reason)
        self.blind = True

    async def props(self) -> dict[str, Json]:
        """`/props`, or why there is none: `refused` and `status`. EngineRefused for 5xx, which is no kind of ready."""
        try:
            return await self.llama.props()
        except EngineRefused as error:
            if error.status >= 500 and error.status != 501:
                raise
            return {"refused": error.message, "status": error.status}

    async def missing(self, error: EngineUnavailable) -> None:
        """Nothing answered: gone at once if the port is closed; stuck if it accepts and no byte flows."""
        if error.status != 504 or self.state in {State.ABSENT, State.LOADING}:
            self.lose(State.ABSENT, error.message)
            return
        self.unanswered = 0 if self.stall.silent_for() < self.interval and self.stall.entries else self.unanswered + 1
        if self.unanswered >= PATIENCE and self.state is State.READY:
            await self.stalled(f"{error.message}, {self.unanswered} times in a row")

    async def answered(self, props: dict[str, Json]) -> None:
        """It answers: the same engine as before, another one, or the first one."""
        identity = await self.identify(props)
        if self.state is State.READY:
            if identity == self.identity:
                self.notice_idle_sleep(props)
                return
            self.lose(State.LOADING, difference(self.identity, identity))
        await self.attach(props, identity)

    async def identify(self, props: dict[str, Json]) -> Identity:
        """Which engine this is. The search for its process is spared while the one that we know lives.

        One that was not seen is searched for again at the 1st, 2nd, 4th, 8th … look: /proc may have missed it.
        """
        told = tuple(str(props.get(name)) for name in IDENTIFYING)
        known = self.identity
        if known is not None and known.pid is not None and listener.start_ticks(known.pid) == known.ticks:
            return Identity(known.pid, known.ticks, told)
        if self.state is not State.READY:
            self.unseen = 0
        elif known is not None and known.pid is None and known.told == told:
            self.unseen += 1
            if self.unseen.bit_count() > 1:
                return known
        process = await process_of(self.pool.origin, self.expect_pid())
        if process is None and known is not None and self.state is State.READY and no_files_left():
            return known  # what is not found now may be there
        self.process = process
        return Identity(process.pid if process else None, process.ticks if process else None, told)

    async def attach(self, props: dict[str, Json], identity: Identity) -> None:
        """Find out what it is, let the app prepare, and declare it ready, if it still is the same by then."""
        changes = self.changes
        try:
            if self.state is State.STUCK:
                await self.prove(computes="build_info" in props)
            else:
                self.become(State.LOADING, "it answers; finding out what it is")
            if self.another_process(identity):
                self.llama.pace.renew()
            facts = await discover(self.llama, props, process=self.process, known=self.discovery)
            if identity != self.identity:
                self.generation += 1
            self.identity, self.facts = identity, facts
            await self.on_ready(facts)
        except BioproxyError as error:
            self.become(State.STUCK if self.state is State.STUCK else State.LOADING, error.message)
            return
        except Exception as error:
            log.exception("preparing for the engine failed")
            self.become(State.LOADING, f"preparing for it failed: {in_words(error)}")
            return
        if changes == self.changes:
            self.become(State.READY, f"{facts.alias or facts.url} is ready")

    def another_process(self, identity: Identity) -> bool:
        """Whether it is surely another process than the one that we knew."""
        known = self.identity
        return (
            known is not None
            and None not in (known.pid, identity.pid)
            and (known.pid, known.ticks) != (identity.pid, identity.ticks)
        )

    def emptied(self, reason: str) -> None:
        """Report that a slot's content may have changed, to the callback that is set by then."""
        self.on_emptied(reason)

    # changes of state

    def become(self, state: State, reason: str) -> None:
        """Take over a state, and publish it if it is another one; RuntimeError for one that cannot follow."""
        if state is not self.state and state not in NEXT[self.state]:
            raise RuntimeError(f"an engine cannot be {state} after it was {self.state}")
        changed, self.reason = state is not self.state or not self.told, reason
        self.state, self.told = state, True
        if state is State.READY:
            self.is_ready.set()
        else:
            self.is_ready.clear()
        if not changed:
            return
        self.since = time.time()
        facts = self.facts if state is State.READY else None
        self.bus.publish(
            EngineChanged(
                url=str(self.pool.origin),
                state=state,
                reason=reason,
                model=facts.alias if facts else "",
                build=facts.build if facts else "",
            )
        )

    def lose(self, state: State, reason: str) -> None:
        """It is not ready (any more): report that once, and drop idle connections."""
        was_ready = self.state is State.READY
        if self.state is State.STUCK and state is State.LOADING:
            state = State.STUCK  # until it has computed a token
        self.changes += 1
        self.become(state, reason)
        if was_ready:
            self.pool.drop_idle()
            self.llama.pace.forget()
            self.on_gone(reason)

    async def stalled(self, reason: str) -> None:
        """It computes nothing: not ready, and its owner may restart it. The silence of one that was lost is no news."""
        self.unanswered = 0
        if self.other is not None:
            self.other = None
            await self.on_stuck(reason)
        if self.state is not State.READY:
            return
        self.lose(State.STUCK, reason)
        await self.on_stuck(reason)

    # sleep

    def notice_idle_sleep(self, props: dict[str, Json]) -> None:
        """llama-server's own idle sleep frees the KV cache and the RAM cache (facts, section 4)."""
        sleeping = bool(props.get("is_sleeping"))
        if self.facts is None or sleeping == self.facts.sleeping:
            return
        self.facts = msgspec.structs.replace(self.facts, sleeping=sleeping)
        if sleeping:
            self.on_emptied("the engine went to sleep and freed its KV cache")

    async def notice_sleep(self) -> None:
        """Boot time ran ahead of monotonic time: the machine slept. Connections are dead, an engine of ours may be."""
        slept = self.slept() - self.asleep
        self.asleep += slept
        if slept < SLEPT:
            return
        log.warning("the machine slept for %.0f s: connections to the engine are opened anew", slept)
        self.pool.drop_idle()
        self.llama.pace.forget()
        self.stall.touch()
        asked = self.state is State.READY or self.other is not None
        if not asked or self.expect_pid() is None or self.stall.entries:
            return
        try:
            await self.prove(computes=self.other is None)
            self.on_emptied("the engine was asked for a token after the machine slept")
        except BioproxyError as error:
            await self.stalled(f"after the machine slept: {error.message}")

    async def prove(self, *, computes: bool) -> None:
        """Have the engine show that it works; EngineUnavailable or EngineRefused if it does not.

        A llama-server `computes` a token; of others it is not known what they would, so their health counts.
        """
        if computes:
            await self.llama.one_token(FIRST_TOKEN)
        elif not await aio.poll(self.llama.well, interval=EAGER, deadline=FIRST_TOKEN):
            raise EngineUnavailable(f"the engine did not answer GET /health well within {FIRST_TOKEN:g} s", status=504)
