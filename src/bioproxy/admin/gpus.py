"""Reading GPUs: NVIDIA's through its management library, AMD's through the files of the amdgpu driver.

No program is started for it: `nvidia-smi` in a loop costs a process and a driver session each time. NVIDIA's library is
reached through nvidia-ml-py (extra `[perf]`, module `pynvml`), which finds the driver's own library at run time. It
fails in two ways that must look different: no driver at all is a machine without such a GPU, and nothing is said; a
driver that worked and fails (an update under a running program, a card that fell off the bus) is told once, and then
no more until it works again. A figure that a card does not have is None, because each card has other gaps.

`root` stands for `/` in tests. Blocking, for a thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec

from bioproxy.admin.host import optional
from bioproxy.samples import MEGABYTE, GpuSample

log = logging.getLogger(__name__)

CARD = re.compile(r"card\d+")  # `card0-DP-1` is a socket of a card
AMD = "0x1002"
ABSENT = ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
PWM_MOST = 255
NORTHBRIDGE = "vddnb"  # a voltage that only a GPU within a processor has


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU now, in the driver's units: bytes, degrees, percent, watts. None is what it does not tell."""

    vendor: str
    name: str
    uuid: str = ""
    driver: str = ""
    driver_version: str | None = None
    architecture: str | None = None
    temperature: float | None = None
    memory_temperature: float | None = None
    busy: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    shared: bool = False  # its memory is a part of the machine's
    fan: float | None = None
    power: float | None = None
    power_limit: float | None = None


class Source(Protocol):
    """One way to see GPUs."""

    def read(self) -> list[Gpu]:
        """Those that can be seen now; raises nothing."""


class Gpus:
    """All sources of this machine."""

    def __init__(self, *sources: Source) -> None:
        self.sources = sources

    def read(self) -> list[Gpu]:
        """Every GPU; its place in the list is its ID."""
        return [gpu for source in self.sources for gpu in source.read()]


class TheseGpus:
    """Whatever this machine may have; the drivers' libraries are loaded at the first look, by the thread that looks."""

    def __init__(self) -> None:
        self.found: Gpus | None = None

    def read(self) -> list[Gpu]:
        if self.found is None:
            pynvml = optional("pynvml")
            self.found = Gpus(*([Nvidia(pynvml)] if pynvml is not None else []), Amd())
        return self.found.read()


class Nvidia:
    """NVIDIA's GPUs. The session with the driver is opened at the first look, and anew after a failure."""

    def __init__(self, pynvml: ModuleType) -> None:
        self.library: Any = pynvml
        self.open = False
        self.told = False

    def read(self) -> list[Gpu]:
        """All of them, or none while the driver fails."""
        try:
            if not self.open:
                self.library.nvmlInit()
                self.open = True
            driver = self.library.nvmlSystemGetDriverVersion()
            found = [self.one(index, driver) for index in range(self.library.nvmlDeviceGetCount())]
        except self.library.NVMLError as error:
            self.failed(error)
            return []
        self.told = False
        return found

    def failed(self, error: Exception) -> None:
        """Give the session up; say so once, unless there is simply no driver."""
        absent = type(error).__name__ in ABSENT and not self.open
        if not absent and not self.told:
            self.told = True
            log.warning("the NVIDIA driver gives no figures: %s; nothing more is said until it does", error)
        if self.open:
            self.open = False
            with contextlib.suppress(self.library.NVMLError):  # what is lost need not be given back
                self.library.nvmlShutdown()

    def maybe(self, ask: Callable[..., Any], *arguments: Any) -> Any:
        """What the driver answers, or None if this card (or this driver) does not know it."""
        unknown = (self.library.NVMLError_NotSupported, self.library.NVMLError_FunctionNotFound)
        try:
            return ask(*arguments)
        except unknown:
            return None

    def one(self, index: int, driver: str) -> Gpu:
        library, maybe = self.library, self.maybe
        card = library.nvmlDeviceGetHandleByIndex(index)
        memory = maybe(library.nvmlDeviceGetMemoryInfo, card)
        busy = maybe(library.nvmlDeviceGetUtilizationRates, card)
        power = maybe(library.nvmlDeviceGetPowerUsage, card)
        limit = maybe(library.nvmlDeviceGetEnforcedPowerLimit, card)
        return Gpu(
            vendor="NVIDIA",
            name=text(library.nvmlDeviceGetName(card)),
            uuid=text(maybe(library.nvmlDeviceGetUUID, card) or ""),
            driver="nvidia",
            driver_version=text(driver),
            architecture=self.architecture(card),
            temperature=maybe(library.nvmlDeviceGetTemperature, card, library.NVML_TEMPERATURE_GPU),
            memory_temperature=self.memory_temperature(card),
            busy=busy.gpu if busy else None,
            memory_used=memory.used if memory else None,
            memory_total=memory.total if memory else None,
            fan=maybe(library.nvmlDeviceGetFanSpeed, card),
            power=power / 1000 if power is not None else None,
            power_limit=limit / 1000 if limit is not None else None,
        )

    def architecture(self, card: Any) -> str | None:
        """`Ada`, `Hopper`…, from the library's own constants, so that a newer library knows newer cards."""
        number = self.maybe(self.library.nvmlDeviceGetArchitecture, card)
        prefix = "NVML_DEVICE_ARCH_"
        names = (name for name in dir(self.library) if name.startswith(prefix) and not name.endswith("UNKNOWN"))
        found = next((name for name in names if getattr(self.library, name) == number), None)
        return found.removeprefix(prefix).capitalize() if found else None

    def memory_temperature(self, card: Any) -> float | None:
        """Temperature of the memory, a field value with a status of its own; most cards have none."""
        values = self.maybe(self.library.nvmlDeviceGetFieldValues, card, [self.library.NVML_FI_DEV_MEMORY_TEMP])
        if not values or values[0].nvmlReturn != self.library.NVML_SUCCESS:
            return None
        return float(values[0].value.uiVal)


def text(value: str | bytes) -> str:
    """A text, as new versions of the library have it and old ones do not."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class Amd:
    """AMD's GPUs, as `/sys/class/drm/card*/device` shows them (kernel: gpu/amdgpu, thermal and driver-misc)."""

    def __init__(self, root: str | Path = "/") -> None:
        self.root = Path(root)

    def read(self) -> list[Gpu]:
        """All of them; a card that sleeps tells less."""
        try:
            cards = sorted(path for path in (self.root / "sys/class/drm").iterdir() if CARD.fullmatch(path.name))
        except OSError:
            return []
        devices = [card / "device" for card in cards]
        return [self.one(device) for device in devices if content(device / "vendor") == AMD]

    def one(self, device: Path) -> Gpu:
        sensors = next(iter(sorted((device / "hwmon").glob("hwmon*"))), device / "hwmon")
        power = number(sensors / "power1_average")
        power = number(sensors / "power1_input") if power is None else power
        limit, fan, busy = number(sensors / "power1_cap"), number(sensors / "pwm1"), number(device / "gpu_busy_percent")
        return Gpu(
            vendor="AMD",
            name=content(device / "product_name") or self.marketing_name(device),
            uuid=content(device / "unique_id"),
            driver="amdgpu",
            driver_version=content(self.root / "sys/module/amdgpu/version") or None,
            temperature=temperature(sensors, "edge"),
            memory_temperature=temperature(sensors, "mem"),
            busy=busy,
            memory_used=number(device / "mem_info_vram_used"),
            memory_total=number(device / "mem_info_vram_total"),
            shared=content(sensors / "in1_label") == NORTHBRIDGE,
            fan=None if fan is None else round(100 * fan / PWM_MOST, 1),
            power=None if power is None else power / 1e6,
            power_limit=None if limit is None else limit / 1e6,
        )

    def marketing_name(self, device: Path) -> str:
        """The name that libdrm's table gives this chip (`744C, C8, AMD Radeon RX 7900 XTX`), else its number."""
        chip, revision = (content(device / name).removeprefix("0x").upper() for name in ("device", "revision"))
        try:
            table = (self.root / "usr/share/libdrm/amdgpu.ids").read_text("utf-8", "replace")
        except OSError:
            table = ""
        for row in table.splitlines():
            cells = [cell.strip() for cell in row.split(",", 2)]
            if len(cells) == 3 and (cells[0].upper(), cells[1].upper()) == (chip, revision):
                return cells[2]
        return f"AMD GPU {chip.lower()}"


def content(path: Path) -> str:
    """The text of a file without blanks around it, or "" if there is none."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def number(path: Path) -> int | None:
    found = content(path)
    return int(found) if found.lstrip("-").isdigit() else None


def temperature(sensors: Path, label: str) -> float | None:
    """Degrees of the sensor with this label; the first one if sensors have none (old chips have one only)."""
    for place in (1, 2, 3):
        if content(sensors / f"temp{place}_label") == label:
            found = number(sensors / f"temp{place}_input")
            return None if found is None else found / 1000
    first = number(sensors / "temp1_input")
    unlabelled = label == "edge" and not content(sensors / "temp1_label")
    return first / 1000 if unlabelled and first is not None else None


def sample(gpu: Gpu, *, place: int, at: datetime) -> GpuSample:
    """The sample of one GPU. The share of its memory in use is computed: drivers mean the busy share of its bus."""
    used, total = gpu.memory_used, gpu.memory_total
    return GpuSample(
        timestamp=at,
        id=place,
        name=gpu.name,
        uuid=gpu.uuid,
        temp_c=None if gpu.temperature is None else round(gpu.temperature),
        vram_temp_c=None if gpu.memory_temperature is None else round(gpu.memory_temperature),
        gpu_util_pct=gpu.busy,
        mem_util_pct=None if used is None or not total else round(100 * used / total, 2),
        mem_used_mb=None if used is None else used // MEGABYTE,
        mem_total_mb=None if total is None else total // MEGABYTE,
        fan_speed_pct=gpu.fan,
        power_draw_w=gpu.power,
    )
