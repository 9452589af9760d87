"""A process that has imported the fake llama-server and forks one for each start: `python -I -S host.py FD`.

A test file starts dozens of them, and four fifths of a start are imports. What is forked is a process as any other is:
with a pid, signals, an end, output of its own, and the command line that bioproxy reads from it. A system that does not
let a process say what its command line is (`able`) has each started as usual.

On the socket FD comes the command line as JSON, with two descriptors: where its output goes, and where its exit status
is written in the end. The answer is its pid. When the socket ends, so does everything here.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from typing import NoReturn

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from fakes import llama_server

PR_SET_MM, MAP = 35, 14  # linux/prctl.h: struct prctl_mm_map
PLACES = (
    26,
    27,
    45,
    46,
    47,
    None,
    28,
    48,
    49,
    50,
    51,
)  # of its addresses in /proc/self/stat; None: sbrk(0)
kept: list[object] = []  # a process's command line stands in its memory


def able() -> bool:
    """Whether a process here may say what its command line is."""
    with open("/proc/self/cmdline", "rb") as file:
        return called(file.read().rstrip(b"\0").split(b"\0"))


def called(words: list[bytes]) -> bool:
    """Have `words` for a command line; whether that was possible."""
    text = ctypes.create_string_buffer(b"\0".join(words))
    kept.append(text)
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    with open("/proc/self/stat", "rb") as file:
        facts = file.read().rpartition(b") ")[2].split()
    places = [libc.sbrk(0) if place is None else int(facts[place - 3]) for place in PLACES]
    places[7:9] = [ctypes.addressof(text), ctypes.addressof(text) + len(text)]
    how = struct.pack("11Q Q I i", *places, 0, 0, -1)
    return bool(libc.prctl(PR_SET_MM, MAP, how, ctypes.c_ulong(len(how)), 0) == 0)


def run(command: list[str], output: int) -> NoReturn:
    """In the new process: be the program of the command line."""
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(3, output + 3)
        called([word.encode() for word in command])
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        code = llama_server.run(command[command.index(llama_server.__file__) + 1 :])
        sys.stdout.flush()
    finally:
        os._exit(code)


def begin(asked: bytes, descriptors: list[int], told: dict[int, int]) -> int:
    """Start one; its pid."""
    output, status = descriptors
    pid = os.fork()
    if pid == 0:
        run(json.loads(asked), output)
    os.close(output)
    told[pid] = status
    return pid


def reap(told: dict[int, int]) -> None:
    """Tell the exit status of each that has ended."""
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            with suppress(BrokenPipeError):
                os.write(told[ended[0]], str(os.waitstatus_to_exitcode(ended[1])).encode())
            os.close(told.pop(ended[0]))


def main(channel: socket.socket) -> None:
    """Fork as asked, until nobody can ask any more."""
    ended, wake = socket.socketpair()
    for each in (ended, wake):
        each.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests
    channel.sendall(b"%d" % able())
    gc.freeze()
    told: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([channel, ended], [], [])
        if ended in ready:
            ended.recv(4096)
            reap(told)
        if channel in ready:
            asked, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 2)
            if not asked:
                break
            channel.sendall(b"%d" % begin(asked, descriptors, told))
    for pid in told:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
