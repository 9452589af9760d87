"""Reading the machine: processors, memory, load, network.

psutil reads them on every system. A `Reading` is plain numbers of one moment; what compares two of them is the pure
function `sample`. Nothing here raises: what cannot be read is None, because a container without `/proc/net` is a
machine whose network we do not see, and no fault. psutil is imported at the first look, in the thread that looks: a
start need not wait for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import ModuleType
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from bioproxy.samples import MEGABYTE, Interface, SystemSample

T = TypeVar("T")
LOOPBACK = ("lo", "lo0", "Loopback Pseudo-Interface 1")
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


def optional(name: str) -> ModuleType | None:
    """The module `name`, or None if it is not installed (or is, and does not work here)."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def attempt(read: Callable[[], T]) -> T | None:
    """What `read` returns, or None if this machine does not tell it."""
    try:
        return read()
    except UNREADABLE:
        return None


class Host:
    """The machine that we run on, through psutil."""

    def __init__(self, psutil: ModuleType | None = None) -> None:
        self.psutil: Any = psutil  # the module; its functions differ by system

    def read(self) -> Reading:
        """All of it, now; blocking, raises nothing."""
        self.psutil = self.psutil or importlib.import_module("psutil")
        return Reading(
            cores=attempt(self.cores),
            memory=attempt(self.memory),
            load=attempt(self.load),
            network=attempt(self.network),
        )

    def cores(self) -> tuple[Core, ...]:
        return tuple(core_of(times._asdict()) for times in self.psutil.cpu_times(percpu=True))

    def memory(self) -> Memory:
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


def utilisation(before: Iterable[Core], after: Iterable[Core]) -> tuple[float, ...]:
    """Percent of the time between two looks that each core computed; empty if cores came or went meanwhile."""
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
