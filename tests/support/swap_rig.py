"""bioproxy in the place of llama-swap: the real program on a configuration of fake models, and what a test asks of it.

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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bioproxy import aio
from fakes.engine_process import EngineProcess
from support.http import Answer, call
from support.swap_client import Client
from support.swap_events import EventLog, Told
from support.swap_models import Ports, config_text

Json = Any
MARK = "SWAP_RIG"
LONG = 10.0  # seconds for what must come


class Program(EngineProcess):
    """`bioproxy -config FILE -listen ADDRESS`, in an environment in which nothing else is set."""

    def __init__(self, folder: Path, *, port: int, flags: tuple[str, ...]) -> None:
        super().__init__()
        self.folder, self.listen, self.flags = folder, port, flags
        self.mark = f"{MARK}={uuid.uuid4().hex}"  # stands in the environment of all that it starts

    def command(self) -> list[str]:
        """The command line of llama-swap's users."""
        variables = [f"PATH={os.environ['PATH']}", f"HOME={self.folder}", "PYTHONUNBUFFERED=1", self.mark]
        config = str(self.folder / "config.yaml")
        flags = ["-config", config, "-listen", f"127.0.0.1:{self.listen}", *self.flags]
        return ["env", "-i", *variables, sys.executable, "-m", "bioproxy", *flags]

    def ready(self, line: str) -> int:
        """It says where it listens."""
        return self.listen if f":{self.listen}" in line else 0

    def children(self) -> list[int]:
        """The pids of every process that carries our mark, the program itself left out."""
        own = self.process.pid if self.process is not None and self.running else 0
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdecimal() and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return [pid for pid in found if pid != own]


class Rig(Client):
    """A program with its fake models, a client of it, and the engines' event log."""

    def __init__(self, folder: Path, *, flags: tuple[str, ...] = ()) -> None:
        self.ports = Ports()
        super().__init__(self.ports.proxy)
        self.folder = folder
        self.program = Program(folder, port=self.ports.proxy, flags=flags)
        self.log = EventLog(folder / "events.jsonl")

    def configure(self, models: Json, **config: Json) -> None:
        """Write the configuration file."""
        text = config_text(models, ports=self.ports, folder=self.folder, events=self.log.path, **config)
        (self.folder / "config.yaml").write_text(text)

    async def reload(self, models: Json, **config: Json) -> None:
        """Change the configuration and have it read again."""
        before = len(self.said("configuration reloaded"))
        self.configure(models, **config)
        self.program.signal(signal.SIGHUP)
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

    async def until(self, condition: Callable[[], object], *, seconds: float = LONG) -> None:
        """Wait until `condition()` is true of the outside world."""

        async def as_wanted() -> bool:
            return bool(condition())

        await self.look(as_wanted, "what the test waits for", seconds=seconds)

    async def look(self, as_wanted: Callable[[], Awaitable[bool]], what: str, *, seconds: float = LONG) -> None:
        """Look until it is as wanted; TimeoutError, with what is known, where it never is."""

        async def look() -> bool | None:
            return await as_wanted() or None

        if await aio.poll(look, interval=0.005, deadline=seconds) is None:
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
                await asyncio.wait_for(self.program.stop(), LONG)
            await self.until(lambda: not self.children(), seconds=5)
        except TimeoutError as error:
            raise AssertionError(f"left behind: {self.children()}; {error}") from None
        finally:
            await self.clear()

    async def clear(self) -> None:
        """Kill what is left, so that the next test is not disturbed."""
        for pid in self.children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if self.program.running:
            await self.program.kill()
        self.ports.close()


@asynccontextmanager
async def swap_rig(folder: Path, models: Json, *, flags: tuple[str, ...] = (), **config: Json) -> AsyncIterator[Rig]:
    """The program, running on `models` (swap_models.py) and further top-level keys; nothing of it is left after."""
    rig = Rig(folder, flags=flags)
    try:
        rig.configure(models, **config)
        await rig.program.start()
        yield rig
    finally:
        await rig.end()
