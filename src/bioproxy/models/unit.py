"""One model's process, one life after the other: begun, waited for, given its KV cache back; saved, ended.

A life belongs to one task (life.py), which calls `start` and `stop` and waits for `ended`; nothing here is
called twice at once. Cache, gate and warm-up are the station's: it is asked to attach to the healthy engine and to let
go of it, in that order:

    start:  exec ─► healthy ─► station.attach (what it is; snapshots that waiting requests need are back) ─► ready
    stop:   station.save (what pays, within a limit) ─► station.detach (our connections close, or llama-server
            would not exit: facts, 0.10) ─► cmdStop or SIGTERM to the group ─► SIGKILL after the grace

llama-swap asks for health once a second, so half a second of each swap is spent waiting for the next look. A connection
that is refused costs some 50 µs here, so a look every 20 ms is cheap even for an engine that loads for minutes. Healthy
is exactly 200, without following redirects: a redirect to a login page is no health, and 503 means "still loading".

An engine that can sleep (`Launch.sleep`, sleep.py) keeps its process between two lives: a stop for a swap or its `ttl`
has it sleep, the next start wakes it, and what fails there ends it. For any other reason it is ended (`end_sleep`).

A start that is cancelled (its model has to go before it was ready) leaves a process that `stop` ends. Before
the start the port must be free: if our number for `${PORT}` stands in the command and another program answers there
already, its health would be taken for our engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from bioproxy import aio
from bioproxy.config.masking import masked_words
from bioproxy.engines.commands import is_container, joined
from bioproxy.engines.process import Exit, Process, how, last_words
from bioproxy.errors import BioproxyError, ConfigError, EngineUnavailable, ModelFailed, in_words
from bioproxy.kv.keeper import Want
from bioproxy.models import command, sleep
from bioproxy.models.waits import Part
from bioproxy.station import Station
from bioproxy.wire.sockets import clear_the_way
from bioproxy.wire.upstream import Pool

log = logging.getLogger(__name__)
T = TypeVar("T")

FAILED_GRACE = 5.0  # seconds for a process whose start failed
LAST_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for a process that its stop command did not end in time
LAST_LINES = 8  # of the engine's log, in the error that a client sees
LONGEST_LINE = 300
INTERVAL = 0.02  # seconds between two looks at the health
PATIENCE = 10.0  # seconds for one look: a server that is busy loading may answer late
FOREVER = 3600.0  # seconds to wake if no time is set
MARK = "ENGINE_OF_BIOPROXY"  # an environment variable by which a process is known as ours, should it be orphaned


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that shapes a model's process; as text it is what a reload compares.

    `check`: path and query of the health check, empty for none; `environment`: `NAME=value`, added to ours.
    """

    model: str
    words: tuple[str, ...]
    stop_words: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    url: str
    host: str
    port: int | str  # or the path of its unix socket
    check: str = "/health"
    health_timeout: float = 120.0
    added: bool = False  # we gave it its slot folder
    sleep: int = 0  # the level at which vLLM sleeps instead of being stopped; 0: it does not

    @property
    def text(self) -> str:
        """All of it as one text, except how long its health may take: that is no reason to start it anew."""
        return msgspec.json.encode(msgspec.structs.replace(self, health_timeout=0.0)).decode()


async def make_room(path: str) -> None:
    """Remove the socket of an engine that was killed, or the next one could not start. ModelFailed if it is alive."""
    try:
        await asyncio.to_thread(clear_the_way, path)
    except ConfigError as error:
        raise ModelFailed(error.message) from error
    except OSError as error:
        log.warning("%s is in the way and could not be removed: %s", path, error.strerror or error)


class Died(ModelFailed):
    """The process ended before it was ready."""


class Started(msgspec.Struct, frozen=True):
    """Seconds of a start: from the process to its health, to find out what it is, to bring its cache back."""

    start: float = 0.0
    attach: float = 0.0
    restore: float = 0.0


class Stopped(msgspec.Struct, frozen=True):
    """Seconds of a stop: the save, and the process's own end."""

    save: float = 0.0
    end: float = 0.0


class Unit:
    """One model. `on_pid` hears of each process (0: it ended), `mark` goes into its environment: for orphans.

    `before` is awaited before each start: what an earlier one may have left in the way goes then. `discreet`: what the
    engine said last is not told to clients, because it may be about another one's prompt.
    """

    away = "it is being stopped"  # what is said of an engine that was stopped; "" if nothing is

    def __init__(
        self,
        launch: Launch,
        station: Station,
        *,
        output: Callable[[bytes], None] | None = None,
        on_pid: Callable[[int], None],
        mark: str,
        before: Callable[[], Awaitable[object]] | None = None,
        discreet: Callable[[], bool] = lambda: False,
    ) -> None:
        self.station = station
        self.output = output
        self.on_pid = on_pid
        self.mark = mark
        self.before = before
        self.discreet = discreet
        self.on_stage: Callable[[Part], None] = lambda _part: None  # hears how far a start or stop is
        self.launch = launch  # of the next life; a reload may set another one
        self.process = self.one_process()
        self.slept = False  # its process was put to sleep
        self.may_sleep = True  # False once another unit has taken its place
        self.turn = asyncio.Lock()  # between a start that wakes it, and who ends it while it sleeps

    def one_process(self) -> Process:
        return Process(
            self.launch.words,
            name=self.launch.model,
            environment={**self.environment(), MARK: self.mark},
            on_exit=self.on_exit,
            output=self.output,
        )

    def environment(self) -> dict[str, str]:
        """What its commands find in their environment: ours, and what the configuration adds."""
        return os.environ | dict(entry.partition("=")[::2] for entry in self.launch.environment if entry.find("=") > 0)

    @property
    def pid(self) -> int | None:
        """The process's pid; None while none runs."""
        return self.process.pid

    @property
    def ended(self) -> asyncio.Future[Exit] | None:
        """How its newest process ended, once it has; None if none was started."""
        return self.process.watcher

    @property
    def exit_code(self) -> int | None:
        """How its newest process ended, as a shell would tell it; None if that is not known, or none has."""
        code = self.process.last_exit.code if self.process.last_exit is not None else None
        return code if code is None or code >= 0 else 128 - code

    def on_exit(self, _exit: Exit) -> None:
        """The process is gone, wanted or not."""
        self.on_pid(0)

    async def start(self, wants: Callable[[], Sequence[Want]]) -> Started:
        """Start the process; returns when a request may go. ModelFailed says why it may not; no process is left then.

        `wants` tells, once the engine is healthy, what the waiting requests would like to find in its cache.
        """
        begun = time.monotonic()
        self.on_stage("start")
        async with self.turn:
            if not await self.wakes():
                await self.execute()
        await self.wait_healthy()
        healthy = time.monotonic()
        self.on_stage("attach")
        attaching = self.station.attach(wants(), lambda: self.on_stage("restore"))
        restore = await self.while_alive(attaching, name="attach")
        done = time.monotonic()
        return Started(healthy - begun, done - healthy - restore, restore)

    async def execute(self) -> None:
        """Start a process of its own."""
        if not self.launch.words:
            raise ModelFailed("unable to get sanitized command: empty command")
        if self.before is not None:
            await self.before()
        await self.see_that_port_is_free()
        self.process = self.one_process()
        self.station.pool.reopen()
        try:
            async with asyncio.timeout(self.launch.health_timeout or None):
                pid = await self.process.start()
        except TimeoutError:
            hung = f"failed to start command '{self.shown()}': the system did not run it within"
            raise ModelFailed(f"{hung} {go_duration(self.launch.health_timeout)} (is its disk there?)") from None
        except Exception as error:
            raise ModelFailed(f"failed to start command '{self.shown()}': {in_words(error)}") from error
        self.on_pid(pid)

    # between two lives, if it sleeps there

    @property
    def asleep(self) -> bool:
        """Whether its process is there and sleeps."""
        return self.slept and self.process.pid is not None

    async def wakes(self) -> bool:
        """Wake its process, if that sleeps; False if there is none (any more)."""
        if not self.asleep:
            return False
        self.slept = False
        self.station.pool.reopen()
        limit = self.launch.health_timeout or FOREVER
        fault = await sleep.within(limit, sleep.wake(self.station.pool, self.launch.sleep))
        if not fault:
            log.info("%s was woken", self.launch.model)
            return True
        log.warning("%s does not wake (%s): it is started anew", self.launch.model, fault)
        await self.station.pool.close()
        await self.end(FAILED_GRACE)
        return False

    async def falls_asleep(self, seconds: float) -> bool:
        """Have its process sleep instead of ending it; False if it has to be ended."""
        if not self.launch.sleep or self.process.pid is None or not self.may_sleep:
            return False
        self.station.pool.reopen()
        try:
            fault = await sleep.within(seconds, sleep.fall_asleep(self.station.pool, self.launch.sleep))
        finally:
            await self.station.pool.close()
        if fault:
            log.warning("%s does not sleep (%s): it is stopped", self.launch.model, fault)
        self.slept = not fault and self.may_sleep
        return self.asleep

    async def end_sleep(self) -> None:
        """End its process if that sleeps."""
        async with self.turn:
            if self.asleep:
                self.slept = False
                await self.end(FAILED_GRACE)

    def shown(self) -> str:
        return joined(masked_words(self.launch.words))[:LONGEST_LINE]

    async def see_that_port_is_free(self) -> None:
        """ModelFailed if another program answers on the port that this one was given."""
        launch = self.launch
        if not command.names_port(launch.words, launch.port) or is_container(launch.words):
            return
        if isinstance(launch.port, str):
            await make_room(launch.port)
            return
        try:
            async with asyncio.timeout(1.0):
                _, writer = await asyncio.open_connection(launch.host, launch.port)
        except (OSError, TimeoutError):
            return
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        raise ModelFailed(
            f"port {launch.port} is taken by another program already; stop that one, or choose another startPort"
        )

    async def wait_healthy(self) -> None:
        """Until it is healthy; else end what is there, and say why."""
        if not self.launch.check:
            return
        limit = self.launch.health_timeout
        looking = wait_healthy(self.station.pool, self.launch.check, timeout=limit)
        if seen := await self.while_alive(looking, name="health"):
            await self.station.detach("its health check timed out")
            await self.process.stop(grace=FAILED_GRACE)
            raise ModelFailed(f"health check timed out after {go_duration(limit)}: {seen}{self.last_words()}")

    async def while_alive(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Do `work` as long as the process lives; Died once it has ended."""
        assert self.ended is not None
        task = aio.spawn(work, name=f"{self.launch.model} {name}")
        try:
            both: list[asyncio.Future[Any]] = [task, self.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                await aio.finish([task])
        if self.ended.done():
            await self.station.detach("its process ended")
            raise Died(f"upstream command exited prematurely: {self.farewell()}")
        return task.result()

    async def wait_ended(self) -> Exit:
        """How this life ended, once it has."""
        assert self.ended is not None
        return await asyncio.shield(self.ended)

    async def died(self) -> str:
        """It ended by itself: let go of it. Returns how it ended, for requests within the back-off."""
        assert self.ended is not None
        await self.station.detach("its process ended")
        if not self.discreet():
            return self.farewell()
        ended = self.ended.result()
        return f"{self.launch.model} (pid {ended.pid}) {how(ended.code, expected=True)}; its log says more"

    async def stop(self, *, grace: float, save: float, sleeps: bool = False) -> Stopped:
        """Save for `save` seconds at most, then end the process: SIGKILL after `grace` seconds.

        `sleeps`: if it can, it sleeps instead.
        """
        saved, calm = 0.0, False
        try:
            if save > 0 and not (self.ended is not None and self.ended.done()):
                self.on_stage("save")
                saved = await self.station.save(save)
            self.on_stage("stop")
            await self.station.detach(self.away)
            calm = True
        finally:  # whatever failed there: a process that is not known would be the second of its model
            begun = time.monotonic()
            if not (calm and sleeps and await self.falls_asleep(grace)):
                await self.end(grace)
        return Stopped(saved, time.monotonic() - begun)

    async def clear(self) -> None:
        """End whatever is left of a life that went wrong."""
        if self.process.pid is not None:
            await self.stop(grace=FAILED_GRACE, save=0.0)

    async def end(self, grace: float) -> None:
        """End the process with `cmdStop`, else with SIGTERM; returns when nothing of it is left.

        A stop command that fails is followed by SIGTERM at once, one that has no effect in time by SIGTERM before
        SIGKILL: what the process stands for (a container, a remote engine) is stopped by its signal handler or not
        at all.
        """
        deadline = time.monotonic() + grace
        pid = self.process.pid
        if pid is not None and self.launch.stop_words and (fault := await self.run_stop_command(pid, grace)):
            log.warning("%s: %s; it is ended with SIGTERM", self.launch.model, fault)
            grace = max(min(LAST_GRACE, grace), deadline - time.monotonic())
        await self.process.stop(grace=grace)

    async def run_stop_command(self, pid: int, seconds: float) -> str:
        """Run `cmdStop` and wait for the process to end, for `seconds` at most; why it goes on, or ""."""
        assert self.ended is not None
        words = [word.replace("${PID}", str(pid)) for word in self.launch.stop_words]
        stopper = Process(words, name=f"cmdStop of {self.launch.model}", environment=self.environment(), brief=True)
        deadline = time.monotonic() + seconds
        self.process.expect_end()
        try:
            await stopper.start()
            assert stopper.watcher is not None
            await asyncio.wait([self.ended, stopper.watcher], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if stopper.watcher.done() and (told := stopper.watcher.result()).code != 0:
                said = last_words(self.process.masked(stopper.tail.last()))
                return f"its stop command failed: it {said}{how(told.code, expected=True)}"
            await asyncio.wait([self.ended], timeout=max(0.0, deadline - time.monotonic()))
        except EngineUnavailable as error:
            return f"its stop command (cmdStop) cannot be run: {self.process.masked(error.message)}"
        finally:
            await stopper.stop(grace=1.0)
        return "" if self.ended.done() else f"it did not end within {seconds:.0f} s of its stop command (cmdStop)"

    def farewell(self) -> str:
        assert self.ended is not None
        return self.ended.result().reason + self.last_words()

    def last_words(self) -> str:
        """The last lines of the engine's log, for the error that a client sees."""
        shown = [line[:LONGEST_LINE] for line in self.process.said() if line.strip()][-LAST_LINES:]
        return "; last lines of its log:\n" + "\n".join(shown) if shown else ""


async def wait_healthy(pool: Pool, path: str, *, timeout: float) -> str:  # noqa: ASYNC109 - told in the sentence
    """Return "" once `GET path` answers 200; else, after `timeout` seconds, what the last look saw."""
    seen = "nothing answered"
    try:
        async with asyncio.timeout(timeout):
            while True:
                seen = await look(pool, path)
                if not seen:
                    return ""
                await asyncio.sleep(INTERVAL)
    except TimeoutError:
        return seen


async def look(pool: Pool, path: str) -> str:
    """One look: "" if it is healthy, else what was seen."""
    try:
        async with asyncio.timeout(PATIENCE):
            answer = await pool.request("GET", path.encode(), [], b"")
            await answer.read()
    except TimeoutError:
        return f"{path} did not answer within {PATIENCE:g} s"
    except BioproxyError as error:
        return error.message
    return "" if answer.status == 200 else f"{path} answered {answer.status}"


def go_duration(seconds: float) -> str:
    """Seconds as llama-swap's messages have them: `2m0s`."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{left}s"
    return f"{minutes}m{left}s" if minutes else f"{left}s"
