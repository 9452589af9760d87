"""bioproxy in the place of llama-swap: the real program on a configuration of fake models, and what a test asks of it.

The program runs in this process, on the test's own loop: its start costs milliseconds, while one of its own costs half
a second of processor time. It is put together from its command line as `bioproxy` does it, and its engines are child
processes as they always are. With `child=True` it is a process of its own, for tests of what only a process has:
signals, `kill -9`, an exit code, what is left behind, its command line.

Everything goes over the ports that users have. What the engines did is read from their event log; what is left of them
when the program has gone is found by a mark in their environment, whatever group or session they moved to. A rig that
leaves a process behind fails its test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bioproxy import aio
from bioproxy.app import App
from bioproxy.cli.main import understand
from bioproxy.cli.reload import Reloader
from bioproxy.cli.serve import say_hello
from bioproxy.models import schedule
from fakes.engine_process import EngineProcess
from fakes.fake_faults import KILL
from support.apps import MS, log_put_back
from support.command import MARK, environment, set_environment
from support.http import Answer, call
from support.swap_client import Client
from support.swap_models import EventLog, Ports, Told, config_text, marked

Json = Any
LONG = 30.0  # seconds for what must come
LOG = 1 << 24  # bytes of the log that are kept for the test


class Setting:
    """Where the program runs: its folder, its port, its flags, and an environment in which nothing else is set."""

    def __init__(self, folder: Path, *, port: int, flags: tuple[str, ...]) -> None:
        self.folder, self.port = folder, port
        self.mark = uuid.uuid4().hex  # stands in the environment of all that it starts
        self.variables = environment(folder, **{MARK: self.mark})
        self.words = ["-config", str(folder / "config.yaml"), "-listen", f"127.0.0.1:{port}", *flags]

    @contextmanager
    def here(self) -> Iterator[None]:
        """In the block, the environment of this process."""
        before = dict(os.environ)
        set_environment(self.variables)
        try:
            yield
        finally:
            set_environment(before)

    def marked(self) -> list[int]:
        """The pids of every process that carries our mark."""
        return marked(MARK, self.mark)


class Child(EngineProcess):
    """`bioproxy -config FILE -listen ADDRESS`, a process of its own."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting

    def command(self) -> list[str]:
        """The command line of llama-swap's users."""
        variables = [f"{name}={value}" for name, value in self.setting.variables.items()]
        return ["env", "-i", *variables, sys.executable, "-m", "bioproxy", *self.setting.words]

    def ready(self, line: str) -> int:
        """It says where it listens."""
        return self.setting.port if f":{self.setting.port}" in line else 0

    def children(self) -> list[int]:
        """The pids of all that it started, the program itself left out."""
        return [pid for pid in self.setting.marked() if not self.running or pid != self.pid]

    def reload(self) -> None:
        """Have the configuration read again."""
        self.signal(signal.SIGHUP)


class Inside:
    """The same program in this process: what `cli/serve.py` does, without signals.

    The pause before a start that failed is tried once more is a tenth of what users have.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.app: App | None = None
        self.written = b""  # the log of the lives so far
        self.undo = ExitStack()

    @property
    def pid(self) -> int:
        """The process in which it runs."""
        return os.getpid()

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self.app is not None

    @property
    def lines(self) -> list[str]:
        """Its log, as its standard error shows it."""
        if self.app is not None:
            self.written += self.log.take()
        return self.written.decode(errors="replace").splitlines()

    async def start(self) -> None:
        """Start; it serves when this returns."""
        self.undo.enter_context(patch.object(schedule, "PAUSE", 200 * MS))
        self.undo.enter_context(log_put_back())
        self.undo.enter_context(self.setting.here())
        command = understand(self.setting.words)
        loaded = command.load()
        app = App(loaded, reload=command.load)
        app.logbook.console = None  # the test's own standard error is not its log
        self.log = app.logbook.mux.subscribe(history=True, limit=LOG)
        self.app, self.reloader = app, Reloader(app.reload)
        self.reloading = aio.spawn(self.reloader.run(), name="reload")
        await app.start()
        say_hello(loaded, app)

    async def stop(self) -> int:
        """Stop in order, as after SIGTERM; the exit code."""
        app = self.app
        assert app is not None
        try:
            await aio.finish([self.reloading])
            await app.stop(app.config.shutdown_timeout)
            await app.close_log()
        finally:
            self.written += self.log.take()
            self.app = None
            self.undo.close()
        return 0

    def children(self) -> list[int]:
        """The pids of all that it started."""
        return self.setting.marked()

    def reload(self) -> None:
        """Have the configuration read again."""
        self.reloader.ask()


class Rig(Client):
    """A program with its fake models, a client of it, and the engines' event log."""

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = (), child: bool = False) -> None:
        self.ports = Ports()
        super().__init__(self.ports.proxy)
        self.folder = folder
        setting = Setting(folder, port=self.ports.proxy, flags=flags)
        self.program: Inside | Child = Child(setting) if child else Inside(setting)
        self.log = EventLog(folder / "events.jsonl")

    @property
    def child(self) -> Child:
        """The program, which must be a process of its own."""
        assert isinstance(self.program, Child), "this test needs swap_rig(..., child=True)"
        return self.program

    def configure(self, models: Json, **config: Json) -> None:
        """Write the configuration file."""
        text = config_text(models, ports=self.ports, folder=self.folder, events=self.log.path, **config)
        (self.folder / "config.yaml").write_text(text)

    async def reload(self, models: Json, **config: Json) -> None:
        """Change the configuration and have it read again."""
        before = len(self.said("configuration reloaded"))
        self.configure(models, **config)
        self.program.reload()
        await self.until(lambda: len(self.said("configuration reloaded")) > before)

    def said(self, text: str) -> list[str]:
        """The lines of the program's log with `text` in them."""
        return [line for line in self.program.lines if text in line]

    # requests whose course the test decides

    async def ask_held(self, model: str, **body: Json) -> asyncio.Task[Answer]:
        """A request that runs on its engine until `release`; returns when it has got there."""
        before = len(self.log.of("held", model))
        task = self.ask(model, hold=0, **body)
        await self.until(lambda: task.done() or len(self.log.of("held", model)) > before)
        assert not task.done(), task.result()
        return task

    async def ask_queued(self, model: str, **body: Json) -> asyncio.Task[Answer]:
        """A request that has to wait for its model; returns when it does."""
        before = await self.waiting()
        task = self.ask(model, **body)
        await self.until_waiting(before + 1)
        return task

    async def release(self, model: str) -> None:
        """Let the requests go on that are held in the newest engine of `model`."""
        await call(self.log.port(model), "POST", "/release")

    async def recover(self, model: str) -> None:
        """Have the newest engine of `model` be healthy from now on (`--health-503-for`)."""
        await call(self.log.port(model), "POST", "/recover")

    def kill(self, model: str) -> None:
        """End the newest engine of `model`, whatever it does."""
        os.kill(self.log.of("start", model)[-1].pid, KILL)

    async def last(self, model: str) -> Json:
        """The newest request as the engine of `model` got it."""
        return (await call(self.log.port(model), "GET", "/last")).json()

    # what is known of the program

    async def running(self) -> dict[str, str]:
        """`/running`: model and state."""
        return {one["model"]: one["state"] for one in (await self.get("/running")).json()["running"]}

    async def overview(self) -> dict[str, Json]:
        """`/api/models`: model and what is known of it."""
        return {one["model"]: one for one in (await self.get("/api/models")).json()["models"]}

    async def waiting(self) -> int:
        """How many requests wait for a model."""
        return sum(one["waiting"] for one in (await self.overview()).values())

    async def until_running(self, **states: str) -> None:
        """Wait until exactly these models are in these states."""

        async def as_wanted() -> bool:
            return await self.running() == states

        await self.look(as_wanted, f"running: {states}")

    async def until_waiting(self, count: int) -> None:
        """Wait until so many requests wait for a model."""

        async def as_wanted() -> bool:
            return await self.waiting() == count

        await self.look(as_wanted, f"{count} requests wait")

    async def until_leaving(self, model: str) -> None:
        """Wait until the program is to stop `model` as soon as it can."""
        assert isinstance(self.program, Inside)
        app = self.program.app
        assert app is not None
        await self.until(lambda: app.fleet.supervisor.schedule.is_leaving(model))

    async def noted(self) -> Path:
        """The register of what runs, as soon as "a" stands in it: it is written beside the start and may be late."""
        found: list[Path] = []

        def stands() -> bool:
            found[:] = (self.folder / "state").rglob("engines.json")
            return any('"model":"a"' in path.read_text() for path in found)

        await self.until(stands)
        return found[0]

    async def until(self, condition: Callable[[], object], *, seconds: float = LONG) -> None:
        """Wait until `condition()` is true of the outside world."""

        async def as_wanted() -> bool:
            return bool(condition())

        await self.look(as_wanted, "what the test waits for", seconds=seconds)

    async def look(self, as_wanted: Callable[[], Awaitable[bool]], what: str, *, seconds: float = LONG) -> None:
        """Look until it is as wanted; TimeoutError, with what is known, if it never is."""

        async def look() -> bool | None:
            return await as_wanted() or None

        if await aio.poll(look, interval=0.01, deadline=seconds) is None:
            events = [f"{told.model} {told.event} {told.how}{told.why}" for told in self.log.all()[-30:]]
            log = "\n".join(self.program.lines[-30:])
            raise TimeoutError(f"did not come true: {what}; events: {events}; the log:\n{log}")

    async def until_event(self, event: str, model: str = "", *, count: int = 1) -> Told:
        """Wait for the `count`-th event of a kind."""
        await self.until(lambda: len(self.log.of(event, model)) >= count)
        return self.log.of(event, model)[count - 1]

    def children(self) -> list[int]:
        """Every process that the program started, or that these started."""
        return self.program.children()

    # its end

    async def end(self) -> None:
        """Stop the program; AssertionError if anything of it is left."""
        await self.leave()
        try:
            if self.program.running:
                await asyncio.wait_for(self.program.stop(), 20.0)  # less than `shutdown_timeout`
            await self.until(lambda: not self.children())
        except TimeoutError as error:
            raise AssertionError(f"left behind: {self.children()}; {error}") from None
        finally:
            await self.clear()

    async def clear(self) -> None:
        """Kill what is left, so that the next test is not disturbed."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                os.kill(pid, KILL)
        if isinstance(self.program, Child) and self.program.running:
            await self.program.kill()
        self.ports.close()


@asynccontextmanager
async def swap_rig(
    folder: Path, models: Json, *, flags: tuple[str, ...] = (), child: bool = False, **config: Json
) -> AsyncIterator[Rig]:
    """The program, running on `models` (swap_models.py) and further top-level keys; nothing of it is left after."""
    rig = Rig(folder, flags=flags, child=child)
    try:
        rig.configure(models, **config)
        await rig.program.start()
        yield rig
    finally:
        await rig.end()
