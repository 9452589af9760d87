"""Where the program of a configuration listens, in a file of its state folder, for as long as it runs.

The command line finds the program by the configuration. Whoever has just saved one with a mistake in it must still be
able to look at what runs, so the program writes its addresses down where the name of the configuration's file alone
leads. No key stands in the file. What a killed program left behind is told by the pid, which the program that answers
there says, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.errors import NOT_JSON

NAME = "listening.json"
LARGEST = 64 << 10  # bytes


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """The URLs at which this machine asks a program; `admin` is "" if it has no admin port.

    `certificate` is the file of what they speak TLS with, "" if neither does.
    """

    pid: int
    proxy: str
    admin: str = ""
    certificate: str = ""


def write(folder: Path, one: Listening) -> None:
    """Write down where this program listens. OSError, ValueError, Stuck.

    Another one with this configuration that runs already stays the one to be found: the second has flags of its own.
    """
    found = read(folder)
    if found is not None and found.pid != one.pid and runs(found.pid, (folder / NAME).stat().st_mtime):
        return
    files.write_whole(folder / NAME, msgspec.json.encode(one), durable=False)


def read(folder: Path) -> Listening | None:
    """Where the program of this folder listens; None if it does not run, or may not be seen by this user. Stuck."""
    try:
        return msgspec.json.decode(files.read(folder / NAME, most=LARGEST), type=Listening)
    except (OSError, *NOT_JSON):
        return None


def runs(pid: int, since: float) -> bool:
    """Whether a process of that number was there at a time (unix), and still is."""
    import psutil

    try:
        return bool(psutil.Process(pid).create_time() <= since)
    except psutil.Error:
        return False


def remove(folder: Path) -> None:
    """Remove what this program wrote down, and nothing of another one. OSError, Stuck."""
    found = read(folder)
    if found is not None and found.pid == os.getpid():
        (folder / NAME).unlink()
