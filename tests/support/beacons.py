"""Child programs that a test can watch without looking at pids: each holds a connection to the test while it lives.

A program that runs `beacon("name")` connects here and says its name; the connection's end is its death, also by
SIGKILL, also of a grandchild that nobody can wait for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
