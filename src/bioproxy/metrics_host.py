"""What the machine does, as values, and how such values become llama-swap's Prometheus series.

A *sample* is one look at the machine or at one GPU. Its field names are those of llama-swap's `sys_stats` and
`gpu_stats` (facts: `/api/performance`), so that a sample is its own JSON; a megabyte in them is 2**20 bytes. Who takes
samples is admin/performance.py's business; here nothing is read, and prometheus_client is not known either: metrics.py
turns a `Family` into what that library wants. Dashboards made for llama-swap find their series by these names.

What a machine does not tell is not made up: such a figure has no series. (In JSON a GPU's unknown figure is 0, because
llama-swap's clients read numbers there; see performance.py.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

MEGABYTE = 1 << 20


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that one network interface carried since it came up."""

    name: str
    bytes_recv: int
    bytes_sent: int


class SystemSample(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at one time. A group of fields that this system does not tell is absent from its JSON."""

    timestamp: datetime
    cpu_util_per_core: tuple[float, ...] | UnsetType = UNSET  # percent; empty until there are two looks to compare
    mem_total_mb: int | UnsetType = UNSET
    mem_used_mb: int | UnsetType = UNSET
    mem_free_mb: int | UnsetType = UNSET
    swap_total_mb: int | UnsetType = UNSET
    swap_used_mb: int | UnsetType = UNSET
    load_avg_1: float | UnsetType = UNSET
    load_avg_5: float | UnsetType = UNSET
    load_avg_15: float | UnsetType = UNSET
    net_io: tuple[Interface, ...] | UnsetType = UNSET


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU at one time; None is what its driver does not tell. `id` is its place among this machine's GPUs."""

    timestamp: datetime
    id: int
    name: str
    uuid: str = ""
    temp_c: int | None = None
    vram_temp_c: int | None = None
    gpu_util_pct: float | None = None
    mem_util_pct: float | None = None
    mem_used_mb: int | None = None
    mem_total_mb: int | None = None
    fan_speed_pct: float | None = None
    power_draw_w: float | None = None


class Series(msgspec.Struct, frozen=True):
    """One line of a family: label values in the order of its label names, and the value."""

    labels: tuple[str, ...]
    value: float


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One Prometheus metric with all its series; a counter's name ends in `_total`."""

    name: str
    text: str
    kind: Literal["gauge", "counter"] = "gauge"
    labels: tuple[str, ...] = ()
    series: tuple[Series, ...]


class Column(msgspec.Struct, frozen=True):
    """One figure of a GPU: which series it feeds, and how."""

    name: str
    text: str
    read: Callable[[GpuSample], float | None]
    scale: int = 1


COLUMNS = (
    Column("llamaswap_gpu_temperature_celsius", "Temperature of the GPU.", lambda gpu: gpu.temp_c),
    Column("llamaswap_gpu_vram_temperature_celsius", "Temperature of its memory.", lambda gpu: gpu.vram_temp_c),
    Column("llamaswap_gpu_util_percent", "Share of time in which the GPU computes.", lambda gpu: gpu.gpu_util_pct),
    Column("llamaswap_gpu_memory_util_percent", "Share of its memory in use.", lambda gpu: gpu.mem_util_pct),
    Column("llamaswap_gpu_memory_used_bytes", "Its memory in use.", lambda gpu: gpu.mem_used_mb, MEGABYTE),
    Column("llamaswap_gpu_memory_total_bytes", "Its memory.", lambda gpu: gpu.mem_total_mb, MEGABYTE),
    Column("llamaswap_gpu_fan_speed_percent", "Speed of its fan.", lambda gpu: gpu.fan_speed_pct),
    Column("llamaswap_gpu_power_draw_watts", "Power that it draws.", lambda gpu: gpu.power_draw_w),
)


def families(system: SystemSample | None, gpus: Sequence[GpuSample]) -> list[Family]:
    """The families of the newest samples; what is not known has no series, and a family without any is left out."""
    found = [*(of_system(system) if system is not None else ()), *of_gpus(gpus)]
    return [family for family in found if family.series]


def of_system(now: SystemSample) -> Iterable[Family]:
    """The machine."""
    cores = () if now.cpu_util_per_core is UNSET else now.cpu_util_per_core
    yield Family(
        name="llamaswap_cpu_util_percent",
        text="Share of time in which a core computes.",
        labels=("core",),
        series=tuple(Series((str(core),), percent) for core, percent in enumerate(cores)),
    )
    yield of_memory("llamaswap_memory_total_bytes", "Memory of the machine.", now.mem_total_mb)
    yield of_memory("llamaswap_memory_used_bytes", "Memory in use.", now.mem_used_mb)
    yield of_memory("llamaswap_memory_free_bytes", "Memory that programs can still have.", now.mem_free_mb)
    yield of_memory("llamaswap_swap_total_bytes", "Swap space.", now.swap_total_mb)
    yield of_memory("llamaswap_swap_used_bytes", "Swap space in use.", now.swap_used_mb)
    loads = (("1m", now.load_avg_1), ("5m", now.load_avg_5), ("15m", now.load_avg_15))
    yield Family(
        name="llamaswap_load_average",
        text="Load average.",
        labels=("interval",),
        series=tuple(Series((interval,), load) for interval, load in loads if load is not UNSET),
    )
    yield of_network(() if now.net_io is UNSET else now.net_io)


def of_memory(name: str, text: str, megabytes: int | UnsetType) -> Family:
    """One size."""
    return Family(name=name, text=text, series=() if megabytes is UNSET else (Series((), float(megabytes * MEGABYTE)),))


def of_network(interfaces: Iterable[Interface]) -> Family:
    """The network interfaces, both directions."""
    lines: list[Series] = []
    for one in interfaces:
        lines += [Series((one.name, "recv"), one.bytes_recv), Series((one.name, "sent"), one.bytes_sent)]
    return Family(
        name="llamaswap_network_bytes_total",
        text="Bytes that a network interface carried.",
        kind="counter",
        labels=("interface", "direction"),
        series=tuple(lines),
    )


def of_gpus(gpus: Sequence[GpuSample]) -> Iterable[Family]:
    """Each figure of each GPU."""
    for column in COLUMNS:
        lines = tuple(
            Series((str(gpu.id), gpu.name, gpu.uuid), value * column.scale)
            for gpu in gpus
            if (value := column.read(gpu)) is not None
        )
        yield Family(name=column.name, text=column.text, labels=("id", "name", "uuid"), series=lines)
