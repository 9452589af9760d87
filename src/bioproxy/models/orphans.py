"""Processes of an earlier run that outlived it: found by what was written down when they were started, and stopped.

The shim (engines/shim.py) ends an engine when we are gone, however that happened. Only if the shim itself was killed as
well can something be left: a server behind `sh -c`, which no parent-death signal reaches. So each start notes here
its pid, start time and a token that stands in the environment of everything it starts; the next run looks through the
processes of this machine for those, and stops what is left before it starts anything on the same ports.

A number alone proves nothing, because it may belong to another process by now: a process counts as ours by its token,
or by pid *and* start time in the same boot. What a program started that still runs is no orphan: two may share a
folder. Only Linux tells these things; elsewhere nothing is looked for. Everything here blocks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from bioproxy import files
from bioproxy.engines.listener import start_ticks
from bioproxy.errors import NOT_JSON

log = logging.getLogger(__name__)

LARGEST = 16 << 20  # bytes of the file
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
PAUSE = 0.05  # seconds between looks whether they are gone


class Started(msgspec.Struct, frozen=True):
    """One process that was started: `ticks` is its start time as the kernel has it, `token` is in its environment.

    `program` is who started it.
    """

    model: str
    pid: int
    ticks: int | None
    command: tuple[str, ...]
    token: str
    program: int = 0
    program_ticks: int | None = None
    boot: str = ""


class Register:
    """What runs now, in a file that the next run reads; 0600, replaced as a whole."""

    def __init__(self, path: Path, *, variable: str, processes: Path = Path("/proc")) -> None:
        self.path = path
        self.variable = variable
        self.processes = processes
        self.running: dict[str, Started] = {}
        self.boot = boot_id()
        self.changed = asyncio.Event()
        self.failing = False

    def note(self, model: str, pid: int, *, command: tuple[str, ...], token: str) -> None:
        """A model's process was started; with pid 0 it ended. `run` writes it down."""
        if pid:
            own = os.getpid()
            shown = tuple(word.encode("utf-8", "replace").decode() for word in command)
            self.running[model] = Started(
                model, pid, start_ticks(pid), shown, token, program=own, program_ticks=start_ticks(own), boot=self.boot
            )
        else:
            self.running.pop(model, None)
        self.changed.set()

    async def run(self) -> None:
        """Write down what is noted: a service that never ends by itself."""
        while True:
            await self.changed.wait()
            await self.save()

    async def save(self) -> None:
        """Replace the file by what is known now; a fault is logged once: it stops no engine."""
        self.changed.clear()
        try:
            await files.away(self.write)
        except (OSError, files.Stuck) as error:
            if not self.failing:
                said = "cannot note in %s which engines run: %s; those that a crash leaves behind are not found then"
                log.warning(said, self.path, files.in_short(error))
            self.failing = True
        else:
            self.failing = False

    def write(self) -> None:
        """The same. OSError, Stuck. Blocks."""
        files.write_whole(self.path, msgspec.json.encode(list(self.running.values())))

    def left(self) -> list[Started]:
        """What an earlier run noted and did not take back; nothing if the file is missing or broken."""
        try:
            return msgspec.json.decode(files.read(self.path, most=LARGEST), type=list[Started])
        except (OSError, *NOT_JSON):
            return []

    def sweep(self) -> list[int]:
        """Stop what is left of an earlier run; the pids that were stopped. Waits for their end."""
        noted = [one for one in self.left() if self.is_orphan(one)]
        found = sorted(self.orphans(noted)) if noted else []
        if found:
            log.warning("engines of an earlier run are still there and are stopped: %s", ", ".join(map(str, found)))
            end(found)
        self.running.clear()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        return found

    def is_orphan(self, one: Started) -> bool:
        """Whether the program that started it is gone, and the machine was not booted since."""
        known = one.program not in (0, os.getpid()) and one.program_ticks is not None
        runs = known and start_ticks(one.program) == one.program_ticks
        return not runs and one.boot in ("", self.boot)

    def orphans(self, noted: list[Started]) -> Iterator[int]:
        """Processes that carry a noted token, or are a noted process itself."""
        tokens = {f"{self.variable}={one.token}".encode() for one in noted}
        known = {one.pid: one.ticks for one in noted if one.ticks is not None}
        for folder in self.processes.iterdir() if self.processes.is_dir() else ():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            pid = int(folder.name)
            variables: list[bytes] = []
            with suppress(OSError):
                variables = (folder / "environ").read_bytes().split(b"\0")
            if not tokens.isdisjoint(variables) or (pid in known and start_ticks(pid) == known[pid]):
                yield pid


def end(pids: list[int]) -> None:
    """SIGTERM, and SIGKILL for what is left after `GRACE` seconds. Each is addressed by its own number."""
    if sys.platform == "win32":  # nothing was looked for
        return
    lives = {pid: start_ticks(pid) for pid in pids}
    deadline = time.monotonic() + GRACE
    send(lives, signal.SIGTERM)
    while alive(lives) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    send(lives, signal.SIGKILL)
    while alive(lives) and time.monotonic() < deadline + GRACE:
        time.sleep(PAUSE)


def send(lives: dict[int, int | None], number: int) -> None:
    """Signal those that still are who they were."""
    for pid in alive(lives):
        with suppress(OSError):
            os.kill(pid, number)


def alive(lives: dict[int, int | None]) -> list[int]:
    """Those that still are who they were, and no zombies."""
    return [pid for pid, ticks in lives.items() if ticks is not None and start_ticks(pid) == ticks and not zombie(pid)]


def boot_id() -> str:
    """What names the time since the machine was booted; empty if the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return True
