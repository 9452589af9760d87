"""Processes that are forked by one that has imported their program (host.py), as asyncio has those that it starts."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

HOST = Path(__file__).with_name("host.py")


class Forked(asyncio.Protocol):
    """One of them: what asyncio's own Process tells of one. On its pipe comes the exit status."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """It has ended."""
        self.returncode = int(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is told."""
        assert self.returncode is not None, "the process that forked it has ended"
        self.ended.set_result(self.returncode)

    async def wait(self) -> int:
        """Wait for its end; its return code."""
        return await asyncio.shield(self.ended)


@functools.cache
def host() -> socket.socket | None:
    """The socket to the one that forks, for as long as this process lives; None if it cannot do it here."""
    ours, theirs = socket.socketpair()
    with theirs:
        words = [sys.executable, "-I", "-S", str(HOST), str(theirs.fileno())]
        environment = {"PATH": os.environ["PATH"]}  # of all tests, not of the one that comes first
        starting.append(subprocess.Popen(words, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL))
    if ours.recv(1) == b"1":
        return ours
    ours.close()
    return None


starting: list[subprocess.Popen[bytes]] = []  # one, kept from being collected while it runs


async def fork(command: list[str]) -> Forked | None:
    """Have the command run; None if it has to be started as usual."""
    if not sys.platform.startswith("linux") or (channel := host()) is None:
        return None
    output, theirs = os.pipe()
    status, told = os.pipe()
    socket.send_fds(channel, [json.dumps(command).encode()], [theirs, told])
    os.close(theirs)
    os.close(told)
    process = Forked(int(channel.recv(32)), asyncio.StreamReader())
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(process.stdout), os.fdopen(output, "rb", 0))
    await loop.connect_read_pipe(lambda: process, os.fdopen(status, "rb", 0))
    return process
