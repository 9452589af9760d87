"""Reading the machine: processors, memory, load, network.

psutil (extra `[perf]`) reads it on every system; without psutil Linux' own files say the same, and elsewhere only the
load average is known. Both readers return a `Reading`, plain numbers of one moment; what compares two moments or rounds
is the pure function `sample`. A reader raises nothing: what cannot be read is None, because a container without
`/proc/net` is a machine whose network we do not see, and no fault.

`root` stands for `/` in tests. Blocking, for a thread.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

import msgspec
from msgspec import UNSET

from bioproxy.metrics_host import MEGABYTE, Interface, SystemSample

T = TypeVar("T")
LOOPBACK = ("lo", "lo0", "Loopback Pseudo-Interface 1")
COUNTED = 8  # of a `cpu` line: user nice system idle iowait irq softirq steal; guests are in user and nice already
IDLE = (3, 4)  # idle and iowait
UNREADABLE = (OSError, ValueError, LookupError, RuntimeError)  # RuntimeError: psutil, on some systems


class Core(msgspec.Struct, frozen=True):
    """Seconds (or ticks) that one core spent since the machine came up: computing, and altogether."""

    busy: float
    total: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes. `available` is what programs can still have: free memory, and caches that give way."""

    total: int
    available: int
    swap_total: int = 0
    swap_used: int = 0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine told at one moment; None is what it does not tell."""

    cores: tuple[Core, ...] | None = None
    memory: Memory | None = None
    load: tuple[float, float, float] | None = None
    network: tuple[Interface, ...] | None = None


class Host(Protocol):
    """One way to read the machine."""

    def read(self) -> Reading:
        """All of it, now; blocking, raises nothing."""


def optional(name: str) -> ModuleType | None:
    """The module `name`, or None where it is not installed (or is, and does not work here)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def attempt(read: Callable[[], T]) -> T | None:
    """What `read` returns, or None where this machine does not tell it."""
    try:
        return read()
    except UNREADABLE:
        return None


def this_host() -> Host:
    """The best reader that this machine has."""
    psutil = optional("psutil")
    return Psutil(psutil) if psutil is not None else Files()


class Psutil:
    """Reads through psutil, on any system."""

    def __init__(self, psutil: ModuleType) -> None:
        self.psutil = psutil

    def read(self) -> Reading:
        """All of it."""
        return Reading(
            cores=attempt(self.cores),
            memory=attempt(self.memory),
            load=attempt(self.load),
            network=attempt(self.network),
        )

    def cores(self) -> tuple[Core, ...]:
        """The times of each core."""
        return tuple(core_of(times._asdict()) for times in self.psutil.cpu_times(percpu=True))

    def memory(self) -> Memory:
        """Memory and swap."""
        memory = self.psutil.virtual_memory()
        swap = attempt(self.psutil.swap_memory)
        return Memory(
            total=memory.total,
            available=memory.available,
            swap_total=swap.total if swap else 0,
            swap_used=swap.used if swap else 0,
        )

    def load(self) -> tuple[float, float, float]:
        """The load averages; on Windows psutil makes them up from the processors' queue."""
        one, five, fifteen = self.psutil.getloadavg()
        return one, five, fifteen

    def network(self) -> tuple[Interface, ...]:
        """Every interface but the loopback."""
        counters = self.psutil.net_io_counters(pernic=True)
        return tuple(
            Interface(name=name, bytes_recv=one.bytes_recv, bytes_sent=one.bytes_sent)
            for name, one in sorted(counters.items())
            if name not in LOOPBACK
        )


def core_of(times: Mapping[str, float]) -> Core:
    """One core from psutil's names of its times; a guest's time is counted in `user` already."""
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return Core(total - times.get("idle", 0.0) - times.get("iowait", 0.0), total)


class Files:
    """Reads Linux' own files; elsewhere only what Python itself knows."""

    def __init__(self, root: str | Path = "/") -> None:
        self.proc = Path(root) / "proc"

    def read(self) -> Reading:
        """All of it."""
        return Reading(
            cores=self.parse("stat", cores),
            memory=self.parse("meminfo", memory),
            load=self.parse("loadavg", load) or (attempt(os.getloadavg) if hasattr(os, "getloadavg") else None),
            network=self.parse("net/dev", network),
        )

    def parse(self, name: str, parser: Callable[[str], T]) -> T | None:
        """What `parser` makes of a file below /proc."""
        return attempt(lambda: parser((self.proc / name).read_text("utf-8", "replace")))


def cores(text: str) -> tuple[Core, ...]:
    """`/proc/stat`: a line for each core, after one for all together."""
    found = []
    for line in text.splitlines():
        name, *ticks = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit():
            numbers = [float(tick) for tick in ticks[:COUNTED]]
            total = sum(numbers)
            found.append(Core(total - sum(numbers[place] for place in IDLE if place < len(numbers)), total))
    if not found:
        raise ValueError("no cores")
    return tuple(found)


def memory(text: str) -> Memory:
    """`/proc/meminfo`, in kB; kernels before 3.14 have no MemAvailable."""
    sizes: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        size = rest.split()
        if size and size[0].isdigit():
            sizes[name] = int(size[0]) << 10
    free = sizes["MemFree"]
    swap = sizes.get("SwapTotal", 0)
    return Memory(
        total=sizes["MemTotal"],
        available=sizes.get("MemAvailable", free + sizes.get("Buffers", 0) + sizes.get("Cached", 0)),
        swap_total=swap,
        swap_used=swap - sizes.get("SwapFree", swap),
    )


def load(text: str) -> tuple[float, float, float]:
    """`/proc/loadavg`."""
    one, five, fifteen = (float(word) for word in text.split()[:3])
    return one, five, fifteen


def network(text: str) -> tuple[Interface, ...]:
    """`/proc/net/dev`: two lines of headings, then `name: received…(8) sent…(8)`."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        numbers = rest.split()
        if name.strip() not in LOOPBACK and len(numbers) > 8:
            found.append(Interface(name=name.strip(), bytes_recv=int(numbers[0]), bytes_sent=int(numbers[8])))
    return tuple(sorted(found, key=lambda one: one.name))


def utilisation(before: Iterable[Core], after: Iterable[Core]) -> tuple[float, ...]:
    """Percent of the time between two looks that each core computed; empty where cores came or went meanwhile."""
    old, new = tuple(before), tuple(after)
    if len(old) != len(new):
        return ()
    return tuple(share(then, now) for then, now in zip(old, new, strict=True))


def share(then: Core, now: Core) -> float:
    """Percent for one core; a counter that ran backwards (a virtual machine moved) counts as nothing."""
    passed, worked = now.total - then.total, now.busy - then.busy
    return round(min(max(100.0 * worked / passed, 0.0), 100.0), 2) if passed > 0 else 0.0


def sample(before: Reading | None, now: Reading, *, at: datetime) -> SystemSample:
    """The sample of a reading and the one before it."""
    cores = UNSET if now.cores is None else utilisation(before.cores or () if before else (), now.cores)
    memory, load = now.memory, now.load
    return SystemSample(
        timestamp=at,
        cpu_util_per_core=cores,
        mem_total_mb=memory.total // MEGABYTE if memory else UNSET,
        mem_used_mb=max(memory.total - memory.available, 0) // MEGABYTE if memory else UNSET,
        mem_free_mb=memory.available // MEGABYTE if memory else UNSET,
        swap_total_mb=memory.swap_total // MEGABYTE if memory else UNSET,
        swap_used_mb=memory.swap_used // MEGABYTE if memory else UNSET,
        load_avg_1=load[0] if load else UNSET,
        load_avg_5=load[1] if load else UNSET,
        load_avg_15=load[2] if load else UNSET,
        net_io=UNSET if now.network is None else now.network,
    )
