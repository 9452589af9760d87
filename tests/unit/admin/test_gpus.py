"""Reading GPUs: a made-up `/sys`, a stand-in for NVIDIA's library, and the real one on this machine."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from bioproxy.admin.gpus import Amd, Gpu, Gpus, Nvidia, TheseGpus, sample

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Library:
    """NVIDIA's library with one card. `fail` is raised by every call; `missing` are calls that it does not know."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVML_TEMPERATURE_GPU = 0
    NVML_FI_DEV_MEMORY_TEMP = 82
    NVML_SUCCESS = 0
    NVML_DEVICE_ARCH_UNKNOWN = 0xFFFFFFFF
    NVML_DEVICE_ARCH_ADA = 8
    ANSWERS: dict[str, Any] = {  # noqa: RUF012 - never written
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlSystemGetDriverVersion": b"580.1",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetHandleByIndex": "card",
        "nvmlDeviceGetName": "NVIDIA Something",
        "nvmlDeviceGetUUID": "GPU-1234",
        "nvmlDeviceGetArchitecture": 8,
        "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3 << 30, total=12 << 30),
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=91, memory=33),
        "nvmlDeviceGetPowerUsage": 300500,
        "nvmlDeviceGetEnforcedPowerLimit": 450000,
        "nvmlDeviceGetTemperature": 70,
        "nvmlDeviceGetFanSpeed": 55,
        "nvmlDeviceGetFieldValues": [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=84))],
    }

    def __init__(self) -> None:
        self.fail: int | None = None
        self.missing: set[str] = set()
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in self.ANSWERS:
            raise AttributeError(name)

        def call(*_: Any) -> Any:
            self.calls.append(name)
            if self.fail is not None:
                raise pynvml.NVMLError(self.fail)
            if name in self.missing:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return self.ANSWERS[name]

        return call


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def nvidia(library: Library) -> Nvidia:
    return Nvidia(library)  # type: ignore[arg-type]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_card_tells_all_its_figures(nvidia: Nvidia) -> None:
    """Watts and bytes, whatever the library's units are."""
    assert nvidia.read() == [
        Gpu(
            vendor="NVIDIA",
            name="NVIDIA Something",
            uuid="GPU-1234",
            driver="nvidia",
            driver_version="580.1",
            architecture="Ada",
            temperature=70,
            memory_temperature=84.0,
            busy=91,
            memory_used=3 << 30,
            memory_total=12 << 30,
            fan=55,
            power=300.5,
            power_limit=450.0,
        )
    ]


def test_what_a_card_does_not_have_is_none(library: Library, nvidia: Nvidia) -> None:
    """Data centre cards have no fan, old ones no power meter; the rest is told."""
    library.missing = {name for name in library.ANSWERS if "DeviceGet" in name} - {
        "nvmlDeviceGetCount",
        "nvmlDeviceGetHandleByIndex",
        "nvmlDeviceGetName",
    }
    assert nvidia.read() == [Gpu(vendor="NVIDIA", name="NVIDIA Something", driver="nvidia", driver_version="580.1")]


def test_the_session_is_opened_once(library: Library, nvidia: Nvidia) -> None:
    """Opening one takes the driver up to a second."""
    for _ in range(3):
        nvidia.read()
    assert library.calls.count("nvmlInit") == 1


def test_no_driver_is_no_news(library: Library, nvidia: Nvidia, caplog: pytest.LogCaptureFixture) -> None:
    """Most machines have no such card."""
    library.fail = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    assert nvidia.read() == []
    assert not warnings(caplog)


def test_a_failing_driver_is_told_once(library: Library, nvidia: Nvidia, caplog: pytest.LogCaptureFixture) -> None:
    """Then silence until it works again, and once more when it fails anew."""
    nvidia.read()
    library.fail = pynvml.NVML_ERROR_GPU_IS_LOST
    assert [nvidia.read(), nvidia.read(), nvidia.read()] == [[], [], []]
    assert len(warnings(caplog)) == 1
    library.fail = None
    assert len(nvidia.read()) == 1
    library.fail = pynvml.NVML_ERROR_UNKNOWN
    nvidia.read()
    assert len(warnings(caplog)) == 2


def test_a_failed_session_is_opened_anew(library: Library, nvidia: Nvidia) -> None:
    """A driver that was updated under us is found again."""
    nvidia.read()
    library.fail = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    nvidia.read()
    library.fail = None
    assert len(nvidia.read()) == 1
    assert library.calls.count("nvmlInit") == 2


def test_the_real_library_has_what_is_called() -> None:
    """The stand-in is made of names that exist."""
    names = [
        *Library.ANSWERS,
        "NVML_TEMPERATURE_GPU",
        "NVML_FI_DEV_MEMORY_TEMP",
        "NVML_SUCCESS",
        "NVML_DEVICE_ARCH_ADA",
    ]
    assert [name for name in names if not hasattr(pynvml, name)] == []


def test_this_machine_can_be_asked(caplog: pytest.LogCaptureFixture) -> None:
    """With or without GPUs there is an answer; without, no word is said."""
    found = TheseGpus().read()
    assert all(gpu.name for gpu in found)
    assert found or not warnings(caplog)


# AMD


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")


def card(root: Path, name: str = "card1") -> Path:
    """A desktop card with everything, below a made-up /sys."""
    device = root / "sys/class/drm" / name / "device"
    write(
        device,
        vendor="0x1002",
        device="0x744c",
        revision="0xc8",
        unique_id="92e7bb2f6a3e2b1c",
        gpu_busy_percent="87",
        mem_info_vram_used=str(6 << 30),
        mem_info_vram_total=str(24 << 30),
    )
    write(
        device / "hwmon/hwmon3",
        temp1_label="edge",
        temp1_input="61000",
        temp2_label="junction",
        temp2_input="75000",
        temp3_label="mem",
        temp3_input="82000",
        power1_average="215000000",
        power1_cap="339000000",
        pwm1="127",
    )
    return device


def test_amdgpus_files_tell_everything(tmp_path: Path) -> None:
    """Units of the driver are turned into ours; the name comes from libdrm's table."""
    card(tmp_path)
    write(tmp_path / "usr/share/libdrm", **{"amdgpu.ids": "1.0.0\n744C,\tC8,\tAMD Radeon RX 7900 XTX"})
    write(tmp_path / "sys/module/amdgpu", version="6.8.5")
    assert Amd(tmp_path).read() == [
        Gpu(
            vendor="AMD",
            name="AMD Radeon RX 7900 XTX",
            uuid="92e7bb2f6a3e2b1c",
            driver="amdgpu",
            driver_version="6.8.5",
            temperature=61.0,
            memory_temperature=82.0,
            busy=87,
            memory_used=6 << 30,
            memory_total=24 << 30,
            fan=49.8,
            power=215.0,
            power_limit=339.0,
        )
    ]


def test_an_old_card_has_one_nameless_sensor(tmp_path: Path) -> None:
    """Its temperature is the GPU's; new chips have power1_input in place of the average."""
    device = card(tmp_path)
    sensors = device / "hwmon/hwmon3"
    for name in ("temp1_label", "temp2_label", "temp3_label", "power1_average"):
        (sensors / name).unlink()
    write(sensors, power1_input="9000000")
    [gpu] = Amd(tmp_path).read()
    assert (gpu.temperature, gpu.memory_temperature, gpu.power) == (61.0, None, 9.0)


def test_a_card_without_files_is_a_card_still(tmp_path: Path) -> None:
    """It sleeps, or its kernel is old: named by its chip, and every figure unknown."""
    write(tmp_path / "sys/class/drm/card0/device", vendor="0x1002", device="0x1681")
    assert Amd(tmp_path).read() == [Gpu(vendor="AMD", name="AMD GPU 1681", driver="amdgpu")]


def test_a_gpu_within_a_processor_shares_memory(tmp_path: Path) -> None:
    """Only such a one measures the northbridge's voltage."""
    write(card(tmp_path) / "hwmon/hwmon3", in1_label="vddnb")
    [gpu] = Amd(tmp_path).read()
    assert gpu.shared


def test_sockets_and_other_makers_are_no_cards_of_amd(tmp_path: Path) -> None:
    """`card0-DP-1` is a plug; an Intel GPU has other files."""
    card(tmp_path, "card0-DP-1")
    write(tmp_path / "sys/class/drm/card2/device", vendor="0x8086")
    assert Amd(tmp_path).read() == []
    assert Amd(tmp_path / "nothing").read() == []


def test_all_sources_are_numbered_together(nvidia: Nvidia, tmp_path: Path) -> None:
    """A machine with both makers' cards has no ID twice."""
    card(tmp_path, "card0")
    card(tmp_path, "card1")
    found = Gpus(nvidia, Amd(tmp_path)).read()
    assert [sample(gpu, place=place, at=NOW).id for place, gpu in enumerate(found)] == [0, 1, 2]
    assert [gpu.vendor for gpu in found] == ["NVIDIA", "AMD", "AMD"]


def test_a_sample_has_whole_megabytes_and_the_share_of_memory() -> None:
    """What a driver calls memory utilisation is how busy its bus is; asked is how full it is."""
    gpu = Gpu(vendor="X", name="x", temperature=61.6, memory_used=(3 << 20) + 5, memory_total=12 << 20)
    taken = sample(gpu, place=4, at=NOW)
    assert (taken.id, taken.temp_c, taken.mem_used_mb, taken.mem_total_mb, taken.mem_util_pct) == (4, 62, 3, 12, 25.0)
    assert taken.vram_temp_c is None


def test_a_sample_of_unknown_memory_has_no_share() -> None:
    """Nor does one of no memory at all."""
    assert sample(Gpu(vendor="X", name="x", memory_used=1, memory_total=0), place=0, at=NOW).mem_util_pct is None
