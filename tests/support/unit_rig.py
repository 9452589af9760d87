"""A unit with a real process (the runnable fake engine) and as little around it as possible.

Child programs can be watched here without looking at pids. A program that runs `beacon("name")` connects to the test
and says its name; the end of that connection is its death, also by SIGKILL, also of a grandchild that no process waits
for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from bioproxy import aio
from bioproxy.models.command import split
from bioproxy.models.unit import MARK, Launch, Unit
from bioproxy.station import Station
from bioproxy.wire.upstream import Pool, parse_origin
from fakes.fake_faults import KILL
from support.swap_models import EventLog, Ports, engine_words, marked

PRELUDE = """
import os, signal, socket, sys, time
def beacon(name):
    connection = socket.create_connection(("127.0.0.1", {port}))
    connection.sendall(name.encode() + b"\\n")
    return connection
def for_ever():
    while True:
        signal.pause()
def deaf():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
def child(name, work=for_ever):
    reader, writer = os.pipe()
    if os.fork() == 0:
        held = beacon(name)
        os.write(writer, b"x")
        work()
        os._exit(0)
    os.read(reader, 1)
"""


class Beacons:
    """Who is there and who has gone, by name."""

    def __init__(self) -> None:
        self.port = 0
        self.here: dict[str, asyncio.Event] = {}
        self.left: dict[str, asyncio.Event] = {}

    def command(self, program: str) -> list[str]:
        """The command that runs `program`, which may use what PRELUDE defines."""
        return [sys.executable, "-I", "-S", "-c", PRELUDE.replace("{port}", str(self.port)) + program]

    async def arrived(self, name: str) -> None:
        """Wait until a program calls itself `name`."""
        await self.here.setdefault(name, asyncio.Event()).wait()

    async def gone(self, name: str) -> None:
        """Wait until the program of that name has ended."""
        await self.left.setdefault(name, asyncio.Event()).wait()

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One program's life."""
        try:
            name = (await reader.readline()).decode().strip()
            self.here.setdefault(name, asyncio.Event()).set()
            await reader.read()
        except ConnectionError:
            pass
        finally:
            self.left.setdefault(name, asyncio.Event()).set()
            writer.close()


@asynccontextmanager
async def beacons() -> AsyncIterator[Beacons]:
    """Beacons that are listened to."""
    found = Beacons()
    server = await asyncio.start_server(found.hear, "127.0.0.1", 0)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


class Gear:
    """A station that only notes what is asked of it. `faults`: names of methods that fail."""

    looked_after = False

    def __init__(self, url: str) -> None:
        self.pool = Pool(parse_origin(url))
        self.calls: list[str] = []
        self.faults: set[str] = set()
        self.may_attach = asyncio.Event()
        self.may_attach.set()
        self.open = False

    def note(self, name: str) -> None:
        """It was asked for this."""
        self.calls.append(name)
        if name in self.faults:
            raise RuntimeError(f"a fault in {name}")

    async def attach(self, wants: Sequence[object], restoring: Callable[[], None]) -> float:
        """Open for requests."""
        del wants, restoring
        self.note("attach")
        await self.may_attach.wait()
        self.open = True
        return 0.0

    async def save(self, limit: float) -> float:
        """Nothing to save."""
        del limit
        self.note("save")
        await asyncio.sleep(0)
        return 0.0

    async def detach(self, reason: str) -> None:
        """Closed."""
        del reason
        self.note("detach")
        self.open = False
        await self.pool.close()


class UnitRig:
    """The unit, its gear, and what lives of its processes.

    `words` are flags of the fake engine; a `program` in Python, in which PORT is its port, stands for it.
    """

    def __init__(self, folder: Path, words: str = "", *, program: str = "", **keys: Any) -> None:
        self.ports = Ports()
        port = self.ports.models
        self.log = EventLog(folder / "events.jsonl")
        text = engine_words(self.log.path, words).replace("${PORT}", str(port)).replace("${MODEL_ID}", "a")
        command = (sys.executable, "-I", "-S", "-c", f"PORT = {port}\n{program}") if program else tuple(split(text))
        url = f"http://127.0.0.1:{port}"
        self.launch = Launch(model="a", words=command, url=url, host="127.0.0.1", port=port, **keys)
        self.gear = Gear(url)
        self.mark = uuid.uuid4().hex
        self.pids: list[int] = []
        self.unit = Unit(self.launch, cast("Station", self.gear), on_pid=self.pids.append, mark=self.mark)

    def processes(self) -> list[int]:
        """Every process that was started by the unit, the shim too, or by these."""
        return marked(MARK, self.mark)

    async def gone(self) -> None:
        """Wait until no process is left."""

        async def look() -> bool | None:
            return not self.processes() or None

        if await aio.poll(look, interval=0.005, deadline=30.0) is None:
            raise AssertionError(f"left behind: {self.processes()}")

    async def end(self) -> None:
        """Kill what is left, for the next test's sake."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, KILL)
        await self.gear.pool.close()
        self.ports.close()


@asynccontextmanager
async def unit_rig(folder: Path, words: str = "", **keys: Any) -> AsyncIterator[UnitRig]:
    """A unit; afterwards nothing of it may live."""
    rig = UnitRig(folder, words, **keys)
    try:
        yield rig
        await rig.gone()
    finally:
        await rig.end()
