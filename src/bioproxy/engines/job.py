"""One life of a child process on Windows: begun, heard, reaped, as child.py does it elsewhere.

No process has to stand between us and an engine here, because the system has job objects: a child and everything that
it starts lie in one, and when the last handle to it is closed, the system ends them all. Only we hold that handle, so
no engine outlives us, however we end. The command is made suspended and runs once it lies in its job: nothing that it
starts can be outside.

There is no SIGTERM. A stop sends Ctrl-Break to the child's process group, which needs a console that both share: as a
service there is none, and the child is ended at once. llama-server has no handler for Ctrl-Break either, and nothing to
lose: what its cache holds was saved before.
"""

from __future__ import annotations

import asyncio
import ctypes
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from ctypes import wintypes
from functools import cache
from typing import cast

from bioproxy.engines.output import PAUSE, Heard, LogTail
from bioproxy.errors import EngineUnavailable

assert sys.platform == "win32"  # child.py is for the others

CREATE_SUSPENDED = 0x4  # winbase.h
EXTENDED_LIMITS = 9  # JobObjectExtendedLimitInformation (winnt.h)
KILL_ON_JOB_CLOSE = 0x2000
LIMITS = struct.pack("qqI124x", 0, 0, KILL_ON_JOB_CLOSE)  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION of 64 bits, else zeros
SET_QUOTA, TERMINATE, SUSPEND_RESUME = 0x100, 0x1, 0x800  # rights to a process: to have it in a job, and to let it run
ENDED = 1  # the exit code of what the job ends, as of TerminateProcess


@cache
def kernel() -> ctypes.WinDLL:
    """kernel32, whose handles are as wide as pointers."""
    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateJobObjectW.restype = library.OpenProcess.restype = wintypes.HANDLE
    library.CreateJobObjectW.argtypes = [wintypes.LPVOID, wintypes.LPCWSTR]
    library.SetInformationJobObject.argtypes = [wintypes.HANDLE, ctypes.c_int, wintypes.LPVOID, wintypes.DWORD]
    library.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    library.AssignProcessToJobObject.argtypes = [wintypes.HANDLE, wintypes.HANDLE]
    library.TerminateJobObject.argtypes = [wintypes.HANDLE, wintypes.UINT]
    library.CloseHandle.argtypes = [wintypes.HANDLE]
    return library


def checked(result: int | None) -> int:
    """What a call to kernel32 returned; OSError if it says that it failed."""
    if not result:
        raise ctypes.WinError(ctypes.get_last_error())
    return result


class Job:
    """Processes that end together: with `end`, with `close`, and with us."""

    def __init__(self) -> None:
        self.handle: int | None = checked(kernel().CreateJobObjectW(None, None))
        try:
            checked(kernel().SetInformationJobObject(self.handle, EXTENDED_LIMITS, LIMITS, len(LIMITS)))
        except OSError:
            self.close()
            raise

    def take(self, pid: int) -> None:
        """Have a suspended process in it, and all that this one will start; then let it run. OSError."""
        process = checked(kernel().OpenProcess(SET_QUOTA | TERMINATE | SUSPEND_RESUME, False, pid))
        try:
            checked(kernel().AssignProcessToJobObject(self.handle, process))
            if status := ctypes.WinDLL("ntdll").NtResumeProcess(wintypes.HANDLE(process)):
                raise OSError(f"it cannot be let run: NTSTATUS {status & 0xFFFFFFFF:#x}")
        finally:
            kernel().CloseHandle(process)

    def end(self) -> None:
        if self.handle is not None:
            kernel().TerminateJobObject(self.handle, ENDED)

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            kernel().CloseHandle(handle)


class Channel(asyncio.SubprocessProtocol):
    """What the event loop tells of the process: its output, its end. `ended` is done when nothing of it is left."""

    def __init__(self, output: Heard, job: Job) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid: asyncio.Future[int] = self.loop.create_future()
        self.ended: asyncio.Future[int | None] = self.loop.create_future()
        self.output = output
        self.job = job
        self.transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Take what there is, and leave the rest to gather for a moment: what a child can cost us has a bound."""
        self.output.tell(data)
        assert self.transport is not None
        pipe = cast("asyncio.ReadTransport | None", self.transport.get_pipe_transport(fd))
        if pipe is not None and not pipe.is_closing():
            pipe.pause_reading()
            self.loop.call_later(PAUSE, pipe.resume_reading)

    def process_exited(self) -> None:
        """What the command leaves behind ends with it, and so does the pipe that it may hold."""
        self.job.end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """The process has ended, and all that was in the pipe is read."""
        assert self.transport is not None
        self.ended.set_result(self.transport.get_returncode())

    def ask_to_stop(self, grace: float) -> None:
        """Have everything ended, `grace` seconds after Ctrl-Break at the latest."""
        assert self.transport is not None
        self.loop.call_later(grace, self.job.end)
        # not os.kill: if that fails it ends the process, and raises a SystemError
        if not kernel().GenerateConsoleCtrlEvent(signal.CTRL_BREAK_EVENT, self.transport.get_pid()):
            self.job.end()  # they share no console

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.job.close()


class Life:
    """One child, from `begin` to `bury`."""

    def __init__(self, popen: subprocess.Popen[bytes], channel: Channel, *, started: float) -> None:
        self.popen = popen
        self.channel = channel
        self.started = started  # unix time just before

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self) -> None:
        """All of it, at once."""
        self.channel.job.end()

    async def bury(self) -> int | None:
        """Wait for the end, close what we hold; the exit status."""
        status = await self.channel.ended
        self.channel.close()
        return status


async def begin(
    command: Sequence[str],
    *,
    tail: LogTail,
    sink: Callable[[bytes], None] | None = None,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> Life:
    """Start `command` in a job of its own. Its output goes to `tail` and `sink`; `environment` None is ours.

    EngineUnavailable if it cannot be run.
    """
    job = Job()
    try:
        return await begun(command, Heard(tail=tail, sink=sink), job, environment=environment, folder=folder)
    except (OSError, ValueError) as error:
        job.close()
        raise EngineUnavailable(f"cannot start {command[0]}{f' in {folder}' if folder else ''}: {error}") from error
    except BaseException:
        job.close()
        raise


async def begun(
    command: Sequence[str], output: Heard, job: Job, *, environment: Mapping[str, str] | None, folder: str | None
) -> Life:
    started = time.time()
    path = None if environment is None else environment.get("PATH")
    transport, channel = await asyncio.get_running_loop().subprocess_exec(
        lambda: Channel(output, job),
        shutil.which(command[0], path=path) or command[0],  # the system itself finds no `engine.cmd` as `engine`
        *command[1:],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED | no_window(),
        env=environment,
        cwd=folder,
    )
    popen = cast("subprocess.Popen[bytes]", transport.get_extra_info("subprocess"))
    try:
        job.take(popen.pid)
    except BaseException:
        popen.kill()
        transport.close()
        raise
    channel.pid.set_result(popen.pid)
    return Life(popen, channel, started=started)


def no_window() -> int:
    """Without a console of ours, a child would open a window."""
    return 0 if kernel().GetConsoleCP() else subprocess.CREATE_NO_WINDOW
