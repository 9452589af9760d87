"""One look at the machine or at one GPU, as values that the API sends and the metrics page reads.

The field names are those of llama-swap's `sys_stats` and `gpu_stats` (facts: `/api/performance`), so that a sample is
its own JSON; a megabyte in them is 2**20 bytes. admin/performance.py takes samples, metrics_page.py makes series of
them.

A figure that a machine does not tell is not made up: UNSET or None here, and no series on the metrics page. (In JSON an
unknown figure of a GPU is 0, because llama-swap's clients read numbers there; see performance.py.)
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

MEGABYTE = 1 << 20


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that one network interface carried since it came up."""

    name: str
    bytes_recv: int
    bytes_sent: int


class SystemSample(msgspec.Struct, frozen=True, kw_only=True):
    """The machine at one time. Fields that this system does not tell are absent from its JSON."""

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


class Look(msgspec.Struct, frozen=True):
    """The machine and all its GPUs at one time."""

    system: SystemSample
    gpus: tuple[GpuSample, ...]
