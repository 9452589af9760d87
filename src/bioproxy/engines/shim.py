"""The program between us and an engine, so that no engine outlives us: `shim.py FD -- command ...`.

A proxy that is killed with SIGKILL cannot clean up, and the engine it started would keep its port and its gigabytes.
So each engine runs under this program, which holds one end of a socket to us. When that reads end of file, we are
gone, however it happened, and the shim stops everything that it started: SIGTERM, and SIGKILL for what remains. A
parent-death signal alone would not do: it reaches the direct child only, and with `sh -c` that is a shell.

The command gets a process group of its own, so that one signal reaches it and its children. On Linux the shim also
adopts what leaves that group and loses its parent (PR_SET_CHILD_SUBREAPER), and the command gets a parent-death signal
for the case that the shim itself is killed. The command's exit ends the rest of its group too.

On the socket, lines of text. To us: `pid N`, then `exit STATUS` (negative: a signal's number) when all are gone; or
`failed ERRNO text` if the command cannot be run. From us: `stop SECONDS` (again: the earlier deadline counts).

It runs as `python -I -S shim.py`: only small modules of the standard library, ready in some 15 ms, 9 MB. `socket` and
`typing` would be half as much again, and a descriptor is all that it needs of the socket.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

assert sys.platform != "win32"  # a job object does its work there (job.py)

ORPHAN_GRACE = 5.0  # seconds between SIGTERM and SIGKILL when we are gone
LEFTOVER_GRACE = 2.0  # the same for what a command leaves behind when it ends by itself
AGAIN = 0.1  # seconds between looks and signals if the system does not tell us
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
STOPPERS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def main(arguments: list[str]) -> int:
    """Run `arguments[2:]` and guard it; 0 when all that it started is gone, 127 if it could not be run."""
    channel = int(arguments[0])
    os.set_inheritable(channel, False)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake = wake_on_signals()
    try:
        child = spawn(arguments[2:])
    except OSError as error:
        report(channel, f"failed {error.errno} {error.strerror}")
        return 127
    report(channel, f"pid {child}")
    status = Guard(channel, wake, child).run()
    report(channel, f"exit {status}")
    return 0


def report(channel: int, line: str) -> None:
    """Tell the one who started us, if it is still there."""
    with suppress(OSError):
        os.write(channel, line.encode("utf-8", "replace") + b"\n")


def wake_on_signals() -> int:
    """Make signals readable: a descriptor on which each one that arrives is a byte, its number."""
    wake, writer = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *STOPPERS):
        signal.signal(number, lambda *_: None)
    return wake


def prctl(option: int, value: int) -> None:
    """Linux's prctl; elsewhere, and if it is refused, nothing: it only adds to what groups do."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(ImportError, OSError, AttributeError):
        import ctypes  # 5 ms, on Linux only

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def spawn(command: list[str]) -> int:
    """Start `command` in a process group of its own, found on PATH; its pid. OSError if it cannot be run."""
    complaint, writer = os.pipe()  # closed by a successful exec, else it carries the error's number
    child = os.fork()
    if child == 0:
        become(command, writer)
    os.close(writer)
    with suppress(OSError):  # the child does the same; either may be first
        os.setpgid(child, child)
    with os.fdopen(complaint, "rb") as pipe:
        number = pipe.read()
    if number:
        os.waitpid(child, 0)
        raise OSError(int(number), os.strerror(int(number)))
    return child


def become(command: list[str], complaint: int) -> NoReturn:
    """In the new process: leave our group, undo what Python did to signals, and turn into `command`."""
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, *STOPPERS):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.execvp(command[0], command)  # noqa: S606 - running this command is what we are for
    except OSError as error:
        os.write(complaint, str(error.errno).encode())
    finally:
        os._exit(127)


class Guard:
    """Watches one child, and ends it and everything it started. `run` returns when nothing of it is left."""

    def __init__(self, channel: int, wake: int, child: int) -> None:
        self.channel: int | None = channel
        self.wake = wake
        self.child = child
        self.status: int | None = None  # the child's, once it has ended
        self.deadline: float | None = None  # when SIGTERM becomes SIGKILL; None: it need not end

    def run(self) -> int:
        """Wait for the end of the child and of all that it leaves; its exit status, negative for a signal."""
        while True:
            ended_before = self.status is not None
            self.reap()
            if self.status is not None:
                if not self.others():
                    return self.status
                if not ended_before:
                    self.stop(LEFTOVER_GRACE)
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.send(signal.SIGKILL)
            self.listen()

    def reap(self) -> None:
        """Take the exit status of every child that ended, adopted ones too."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.child:
                    self.status = os.waitstatus_to_exitcode(status)

    def others(self) -> list[int]:
        """What still lives of the command's group (named by a negative number, as kill does) and of adopted orphans."""
        alive = adopted()
        with suppress(OSError):
            os.killpg(self.child, 0)
            alive.append(-self.child)
        return alive

    def send(self, number: int) -> None:
        """Signal the group, and whatever left it. The group's number is not reused while anyone is in it."""
        for target in {-self.child, *self.others()}:
            with suppress(OSError):
                os.kill(target, number)

    def stop(self, grace: float) -> None:
        """Ask everything to end; kill what has not after `grace` seconds."""
        deadline = time.monotonic() + grace
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)
        self.send(signal.SIGTERM)

    def listen(self) -> None:
        """Wait for a signal, a line or the end of the socket, or until it is time to look again."""
        sources = [self.wake] if self.channel is None else [self.wake, self.channel]
        ready, _, _ = select.select(sources, [], [], self.patience())
        if self.wake in ready and STOPPERS & set(os.read(self.wake, 4096)):
            self.stop(ORPHAN_GRACE)
        if self.channel in ready:
            self.obey()

    def patience(self) -> float | None:
        """Seconds until there is something to do without being told."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0 or self.status is not None:
            return AGAIN  # a group's emptiness is not announced
        return left

    def obey(self) -> None:
        """Read what we are told; the end of the socket means that bioproxy is gone."""
        assert self.channel is not None
        try:
            data = os.read(self.channel, 4096)
        except OSError:
            data = b""
        if not data:
            self.channel = None
            self.stop(ORPHAN_GRACE)
        for line in data.splitlines():
            self.stop(float(line.removeprefix(b"stop ")))


def adopted() -> list[int]:
    """Pids of our direct children, orphans that Linux gave us among them; none if the system does not list them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:  # pathlib costs 10 ms
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
