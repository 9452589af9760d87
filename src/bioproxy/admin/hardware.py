"""What machine this is: `GET /api/hardware`, in llama-swap's shape (facts, 6.5).

It is found out once, when it is first asked for, and kept: none of it changes under a running program, and
`captured_at` says how old it is. Everything is read from files and from what Python and the GPU readers know; no
program is started. What cannot be seen is null. Only a machine whose memory cannot be told has no snapshot at all
(503), because readers take that number for granted. Blocking, but for `Hardware.snapshot`; `root` stands for `/` in
tests.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from bioproxy import __version__
from bioproxy.admin.gpus import Gpu, TheseGpus, content
from bioproxy.admin.host import Host
from bioproxy.admin.performance import GpuReader, utc_now
from bioproxy.errors import BioproxyError

UNAVAILABLE = "hardware detection unavailable"
ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
FAMILIES = {"Linux": "linux", "Darwin": "macos", "Windows": "windows", "FreeBSD": "freebsd"}
VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "0x41": "ARM", "0x61": "Apple", "0x51": "Qualcomm"}
HYPERVISORS = (  # what firmware calls itself, and what people call that
    ("Amazon EC2", "Amazon EC2"),
    ("Google", "Google Compute Engine"),
    ("VMware", "VMware"),
    ("innotek", "VirtualBox"),
    ("VirtualBox", "VirtualBox"),
    ("Microsoft Corporation Virtual Machine", "Hyper-V"),
    ("Xen", "Xen"),
    ("QEMU", "QEMU"),
    ("KVM", "KVM"),
)
NO_MODEL = {"", "arm", "i386", "x86_64", "aarch64", "arm64"}  # what platform.processor says when it knows nothing


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "bioproxy"
    version: str = __version__


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    scope: str = "inference_host"
    method: str = "detected"
    detector: Detector = Detector()


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    raw_name: str | None = None


class OperatingSystem(msgspec.Struct, frozen=True, kw_only=True):
    family: str
    name: str | None = None
    version: str | None = None
    kernel: str | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where we run: `native`, `virtual_machine` or `container`, and which one."""

    kind: str = "native"
    name: str | None = None
    version: str | None = None


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    vendor: str | None = None
    model: str | None = None
    socket_count: int | None = None
    physical_core_count: int | None = None
    logical_thread_count: int | None = None


class SystemMemory(msgspec.Struct, frozen=True, kw_only=True):
    capacity_bytes: int


class AcceleratorMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU's memory: `dedicated`, `shared_system` or `unknown`."""

    kind: str
    capacity_bytes: int | None


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None
    version: str | None


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; `index` is its `id` in `/api/performance`."""

    index: int
    kind: str = "gpu"
    vendor: str | None
    model: str | None
    architecture: str | None
    memory: AcceleratorMemory
    driver: Driver | None
    power_limit_watts: float | None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    schema_version: int = 1
    captured_at: datetime
    capture: Capture = Capture()
    architecture: Architecture
    operating_system: OperatingSystem
    environment: Environment
    cpu: Cpu
    memory: SystemMemory
    accelerators: tuple[Accelerator, ...]


class Hardware:
    """The snapshot of this machine, taken once."""

    def __init__(self, *, gpus: GpuReader | None = None, take: Callable[[GpuReader], Snapshot] | None = None) -> None:
        self.gpus = TheseGpus() if gpus is None else gpus
        self.take = capture if take is None else take
        self.taken: Snapshot | None = None

    async def snapshot(self) -> Snapshot:
        """What machine this is. BioproxyError with status 503 if it cannot be told."""
        if self.taken is None:
            self.taken = await asyncio.to_thread(self.take, self.gpus)
        return self.taken


def capture(gpus: GpuReader, *, root: str | Path = "/", memory: int | None = None) -> Snapshot:
    """Look at the machine; `memory` (bytes) only if it is known already."""
    base = Path(root)
    bytes_there = memory_of_machine() if memory is None else memory
    if bytes_there is None:
        raise BioproxyError(UNAVAILABLE, status=503)
    machine = platform.machine()
    name = ARCHITECTURES.get(machine.lower(), machine or "unknown")
    return Snapshot(
        captured_at=utc_now(),
        architecture=Architecture(name=name, raw_name=machine or None),
        operating_system=operating_system(base),
        environment=environment(base, os.environ),
        cpu=cpu(base),
        memory=SystemMemory(capacity_bytes=bytes_there),
        accelerators=tuple(accelerator(index, gpu) for index, gpu in enumerate(gpus.read())),
    )


def memory_of_machine() -> int | None:
    """Bytes of memory; None if the system does not tell."""
    memory = Host().read().memory
    return memory.total if memory is not None else None


def operating_system(root: Path) -> OperatingSystem:
    """The system; on Linux the distribution, by its own file."""
    system = platform.system()
    family, kernel = FAMILIES.get(system, system.lower() or "unknown"), platform.release() or None
    if family == "linux":
        about = assignments(content(root / "etc/os-release"))
        return OperatingSystem(
            family=family, name=about.get("NAME"), version=about.get("VERSION_ID") or None, kernel=kernel
        )
    version = platform.mac_ver()[0] if family == "macos" else platform.version()
    return OperatingSystem(
        family=family, name="macOS" if family == "macos" else system or None, version=version or None, kernel=kernel
    )


def assignments(text: str) -> dict[str, str]:
    """`NAME="value"` lines."""
    pairs = (row.partition("=") for row in text.splitlines() if "=" in row and not row.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def environment(root: Path, variables: Mapping[str, str]) -> Environment:
    """A container before a virtual machine: what is nearest to us counts."""
    if "KUBERNETES_SERVICE_HOST" in variables:
        return Environment(kind="container", name="kubernetes")
    if (root / "run/.containerenv").exists():
        engine = assignments(content(root / "run/.containerenv")).get("engine", "podman")
        name, _, version = engine.partition("-")
        return Environment(kind="container", name=name, version=version or None)
    if (root / ".dockerenv").exists():
        return Environment(kind="container", name="docker")
    if told := content(root / "run/systemd/container") or variables.get("container", ""):
        return Environment(kind="container", name=told)
    if "microsoft" in content(root / "proc/sys/kernel/osrelease").lower():
        return Environment(kind="virtual_machine", name="WSL")
    return hypervisor(root)


def hypervisor(root: Path) -> Environment:
    """Whether firmware or processor tell of a hypervisor."""
    firmware = " ".join(content(root / "sys/class/dmi/id" / name) for name in ("sys_vendor", "product_name"))
    for sign, name in HYPERVISORS:
        if sign in firmware:
            return Environment(kind="virtual_machine", name=name)
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", content(root / "proc/cpuinfo"), re.MULTILINE)
    return Environment(kind="virtual_machine") if flags else Environment()


def cpu(root: Path) -> Cpu:
    """The processors, by `/proc/cpuinfo` if there is one."""
    blocks = [fields(block) for block in re.split(r"\n\s*\n", content(root / "proc/cpuinfo")) if "processor" in block]
    first = blocks[0] if blocks else {}
    said = first.get("vendor_id") or first.get("CPU implementer")
    sockets = {block["physical id"] for block in blocks if "physical id" in block}
    cores = {(block.get("physical id"), block["core id"]) for block in blocks if "core id" in block}
    model = first.get("model name") or platform.processor()
    return Cpu(
        vendor=VENDORS.get(said, said) if said else None,
        model=None if model in NO_MODEL else model,
        socket_count=len(sockets) or None,
        physical_core_count=len(cores) or None,
        logical_thread_count=len(blocks) or os.cpu_count(),
    )


def fields(block: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (row.partition(":") for row in block.splitlines())}


def accelerator(index: int, gpu: Gpu) -> Accelerator:
    """One GPU, as people describe machines."""
    kind = "shared_system" if gpu.shared else "dedicated" if gpu.memory_total else "unknown"
    return Accelerator(
        index=index,
        vendor=gpu.vendor,
        model=gpu.name or None,
        architecture=gpu.architecture,
        memory=AcceleratorMemory(kind=kind, capacity_bytes=gpu.memory_total or None),
        driver=Driver(name=gpu.driver or None, version=gpu.driver_version),
        power_limit_watts=gpu.power_limit,
    )
