"""One life of a child process under the shim: begun, heard, reaped. `process.py` decides when to begin the next one.

Two descriptors lead to a child: the socket to its shim, on which two futures hang (its pid, and its end), and the pipe
with its output. Both are connected to the loop before the process is made, so that from then on nothing is awaited
until the life has an owner, and a cancellation cannot fall in between and lose a process.

An engine may write as fast as a pipe goes, or a line at a time without end, and all of it passes through our one
thread. So the pipe is large, it is read in large pieces, and after each piece it is left alone for a moment: what a
child can cost us has a bound, and one that writes more than about 60 MB/s is made to wait by its own pipe. The first
line after a silence is heard at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import cast

from bioproxy.engines import shim
from bioproxy.engines.output import PAUSE, Heard, LogTail
from bioproxy.errors import EngineUnavailable

assert sys.platform != "win32"  # job.py is for Windows

log = logging.getLogger(__name__)

LAST_WORDS = 0.5  # seconds for the output's end if the shim was killed and cannot tell that all are gone
PIPE = 256 << 10  # bytes that the pipe holds (four times Linux's default) and that one read takes at most


class Channel(asyncio.Protocol):
    """Our end of the socket to the shim: what it reports becomes two futures."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.pid: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Future[int | None] = loop.create_future()  # None: the shim was killed
        self.received = b""
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to tell the shim something."""
        self.transport = cast("asyncio.WriteTransport", transport)  # uvloop's transports inherit nothing

    def data_received(self, data: bytes) -> None:
        """Lines: `pid N`, `exit STATUS`, `failed ERRNO text`."""
        *lines, self.received = (self.received + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode("utf-8", "replace").partition(" ")
            if word == "exit":
                self.ended.set_result(int(rest))
            elif word == "pid":
                self.pid.set_result(int(rest))
            else:
                self.pid.set_exception(EngineUnavailable(rest.partition(" ")[2]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The shim is gone; without an `exit` it was killed."""
        if not self.pid.done():
            self.pid.set_exception(EngineUnavailable("the process that starts engines ended at once"))
            self.pid.exception()  # nobody may wait for it: an order to stop can come before it is told
        if not self.ended.done():
            self.ended.set_result(None)

    def ask_to_stop(self, grace: float) -> None:
        """Have everything ended, `grace` seconds after SIGTERM at the latest."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(f"stop {grace}\n".encode())

    def close(self) -> None:
        """End of file for the shim, which takes it as our death."""
        if self.transport is not None:
            self.transport.close()


class Output(Heard):
    """The child's standard output and error, read from the pipe `descriptor` into `tail`, and told to `sink`.

    `closed` is done at the end of file, or once `close` was called; the descriptor is ours and closed with it.
    """

    def __init__(self, descriptor: int, *, tail: LogTail, sink: Callable[[bytes], None] | None = None) -> None:
        super().__init__(tail=tail, sink=sink)
        self.descriptor = descriptor
        self.loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.pausing: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        enlarge(descriptor)
        self.listen()

    def listen(self) -> None:
        self.pausing = None
        self.loop.add_reader(self.descriptor, self.hear)

    def hear(self) -> None:
        """Take what there is, and leave the rest to gather for a moment."""
        if self.read():
            self.loop.remove_reader(self.descriptor)
            self.pausing = self.loop.call_later(PAUSE, self.listen)

    def read(self) -> int:
        """Take a piece, if there is one; its length."""
        try:
            data = os.read(self.descriptor, PIPE)
        except BlockingIOError:
            return 0
        except OSError as error:
            log.warning("an engine's output cannot be read any more: %s", error.strerror)
            data = b""
        if data:
            self.tell(data)
        else:
            self.close()
        return len(data)

    def drain(self) -> None:
        """Take all that is in the pipe now, at once: as much as it can hold, for a writer that got away may go on."""
        taken = 0
        while not self.closed.done() and taken <= PIPE and (length := self.read()):
            taken += length

    def close(self) -> None:
        if self.closed.done():
            return
        self.closed.set_result(None)
        if self.pausing is not None:
            self.pausing.cancel()
        self.loop.remove_reader(self.descriptor)
        os.close(self.descriptor)


def enlarge(descriptor: int) -> None:
    """Let a pipe hold PIPE bytes, if the system can (Linux) and lets us (one user's pipes are limited together)."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE)


class Life:
    """One child, from `begin` to `bury`."""

    def __init__(self, popen: subprocess.Popen[bytes], channel: Channel, output: Output, *, started: float) -> None:
        self.popen = popen
        self.channel = channel
        self.output = output
        self.started = started  # unix time just before

    @property
    def pid(self) -> int:
        """The command's, not the shim's; 0 until the shim has told it, and if the command cannot be run."""
        told = self.channel.pid
        return told.result() if told.done() and told.exception() is None else 0

    def kill(self) -> None:
        """What is left to do when the shim does not do its work: both groups, at once."""
        for group in (self.popen.pid, self.pid):
            if group > 0:
                with suppress(OSError):
                    os.killpg(group, signal.SIGKILL)

    async def bury(self) -> int | None:
        """Wait for the end, reap the shim, close what we hold; the exit status, None if the shim was killed.

        A shim that tells the end tells it of all that could write, so their last words stand in the pipe by then and
        are read here, at once: not even a machine so busy that any time-out is too short loses a line.
        """
        status = await asyncio.shield(self.channel.ended)  # which is told all the same if we are cancelled
        if status is None:
            self.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.output.closed), LAST_WORDS)
        self.output.drain()
        self.output.close()
        self.channel.close()
        await asyncio.to_thread(self.popen.wait)
        return status


async def begin(
    command: Sequence[str],
    *,
    tail: LogTail,
    sink: Callable[[bytes], None] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Life:
    """Start `command` under the shim; `channel.pid` tells whether it runs. Its output goes to `tail` and `sink`.

    `environment` None is ours. EngineUnavailable if not even the shim can be started: no such folder, no descriptor
    or process left, a command that no system could run.
    """
    try:
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        with theirs, os.fdopen(writer, "wb", buffering=0), ExitStack() as undo:
            output = Output(reader, tail=tail, sink=sink)
            undo.callback(output.close)
            _, channel = await asyncio.get_running_loop().create_unix_connection(Channel, sock=ours)
            undo.callback(channel.close)
            started = time.time()
            popen = start_shim([str(theirs.fileno()), "--", *command], writer, environment, folder)
            undo.pop_all()
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"cannot start {command[0]} in {folder or Path.cwd()}: {error}") from error
    return Life(popen, channel, output, started=started)


def start_shim(
    arguments: list[str], output: int, environment: Mapping[str, str] | None, folder: str | None
) -> subprocess.Popen[bytes]:
    """The process itself, in a session of its own; `arguments[0]` is the number of the descriptor that it inherits."""
    return subprocess.Popen(  # noqa: S603 - running what the operator configured is the point
        [*shim_command(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=[int(arguments[0])],
        start_new_session=True,
        env=environment,
        cwd=folder,
    )


def shim_command() -> list[str]:
    """How the shim is started: isolated, from its file; a single-file executable carries it as a verb."""
    if getattr(sys, "frozen", False):
        return [sys.executable, "shim"]
    return [sys.executable, "-I", "-S", str(Path(shim.__file__))]
