"""What machine this is: made-up file trees, and this very machine."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from bioproxy.admin.gpus import Gpu
from bioproxy.admin.hardware import (
    Environment,
    Hardware,
    Snapshot,
    capture,
    cpu,
    environment,
    memory_of_machine,
    operating_system,
)
from bioproxy.admin.performance import GpuReader
from bioproxy.errors import BioproxyError

CPUINFO = """\
processor	: 0
vendor_id	: AuthenticAMD
model name	: AMD Ryzen 9 7950X 16-Core Processor
physical id	: 0
core id		: 0
flags		: fpu vme avx512f

processor	: 1
vendor_id	: AuthenticAMD
model name	: AMD Ryzen 9 7950X 16-Core Processor
physical id	: 0
core id		: 0
flags		: fpu vme avx512f

processor	: 2
vendor_id	: AuthenticAMD
model name	: AMD Ryzen 9 7950X 16-Core Processor
physical id	: 1
core id		: 0
flags		: fpu vme avx512f
"""


class Cards:
    """GPUs that are given."""

    def __init__(self, *cards: Gpu) -> None:
        self.cards = list(cards)

    def read(self) -> list[Gpu]:
        return self.cards


def write(root: Path, name: str, text: str = "") -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_answer_has_llama_swaps_shape(tmp_path: Path) -> None:
    """Every member is there, null where nothing is known."""
    card = Gpu(vendor="NVIDIA", name="RTX", driver="nvidia", driver_version="580", memory_total=9, power_limit=450.0)
    told = json.loads(msgspec.json.encode(capture(Cards(card), root=tmp_path, memory=1024)))
    assert list(told) == [
        "schema_version",
        "captured_at",
        "capture",
        "architecture",
        "operating_system",
        "environment",
        "cpu",
        "memory",
        "accelerators",
    ]
    assert told["schema_version"] == 1
    assert told["capture"]["scope"] == "inference_host"
    assert told["capture"]["detector"]["name"] == "bioproxy"
    assert told["memory"] == {"capacity_bytes": 1024}
    assert set(told["cpu"]) == {"vendor", "model", "socket_count", "physical_core_count", "logical_thread_count"}
    assert told["accelerators"] == [
        {
            "index": 0,
            "kind": "gpu",
            "vendor": "NVIDIA",
            "model": "RTX",
            "architecture": None,
            "memory": {"kind": "dedicated", "capacity_bytes": 9},
            "driver": {"name": "nvidia", "version": "580"},
            "power_limit_watts": 450.0,
        }
    ]


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        (Gpu(vendor="AMD", name="x", memory_total=5, shared=True), "shared_system"),
        (Gpu(vendor="AMD", name="x", memory_total=5), "dedicated"),
        (Gpu(vendor="NVIDIA", name="x"), "unknown"),
    ],
)
def test_whose_memory_a_gpu_has(tmp_path: Path, card: Gpu, kind: str) -> None:
    """Its own, the machine's, or nobody says."""
    [accelerator] = capture(Cards(card), root=tmp_path, memory=1).accelerators
    assert accelerator.memory.kind == kind


def test_processors_are_counted(tmp_path: Path) -> None:
    """Sockets, cores and threads are three numbers."""
    write(tmp_path, "proc/cpuinfo", CPUINFO)
    found = cpu(tmp_path)
    assert (found.vendor, found.model) == ("AMD", "AMD Ryzen 9 7950X 16-Core Processor")
    assert (found.socket_count, found.physical_core_count, found.logical_thread_count) == (2, 2, 3)


def test_an_arm_processor_says_less(tmp_path: Path) -> None:
    """A maker by number, no sockets; nothing is made up."""
    write(tmp_path, "proc/cpuinfo", "processor\t: 0\nBogoMIPS\t: 50\nCPU implementer\t: 0x41\n")
    found = cpu(tmp_path)
    assert (found.vendor, found.socket_count, found.physical_core_count, found.logical_thread_count) == (
        "ARM",
        None,
        None,
        1,
    )


def test_without_cpuinfo_threads_are_known(tmp_path: Path) -> None:
    """Python counts them itself."""
    assert (cpu(tmp_path).logical_thread_count or 0) > 0


@pytest.mark.parametrize(
    ("files", "variables", "kind", "name", "version"),
    [
        ({}, {}, "native", None, None),
        ({".dockerenv": ""}, {}, "container", "docker", None),
        ({"run/.containerenv": 'engine="podman-4.9.3"\n'}, {}, "container", "podman", "4.9.3"),
        ({"run/.containerenv": ""}, {}, "container", "podman", None),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "container", "kubernetes", None),
        ({"run/systemd/container": "lxc\n"}, {}, "container", "lxc", None),
        ({}, {"container": "systemd-nspawn"}, "container", "systemd-nspawn", None),
        ({"proc/sys/kernel/osrelease": "5.15.1-microsoft-standard-WSL2"}, {}, "virtual_machine", "WSL", None),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, {}, "virtual_machine", "QEMU", None),
        (
            {
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation",
                "sys/class/dmi/id/product_name": "Virtual Machine",
            },
            {},
            "virtual_machine",
            "Hyper-V",
            None,
        ),
        ({"proc/cpuinfo": "processor : 0\nflags : fpu hypervisor lahf_lm\n"}, {}, "virtual_machine", None, None),
        ({"sys/class/dmi/id/sys_vendor": "ASUS", "proc/cpuinfo": CPUINFO}, {}, "native", None, None),
    ],
)
def test_where_we_run(
    tmp_path: Path,
    files: dict[str, str],
    variables: dict[str, str],
    kind: str,
    name: str | None,
    version: str | None,
) -> None:
    """A container before a virtual machine, for it is nearer."""
    for path, text in files.items():
        write(tmp_path, path, text)
    assert environment(tmp_path, variables) == Environment(kind=kind, name=name, version=version)


@pytest.mark.skipif(operating_system(Path("/")).family != "linux", reason="reads /etc/os-release")
def test_linux_is_named_by_its_distribution(tmp_path: Path) -> None:
    """Quotes and comments of os-release are no part of it; a rolling one has no version."""
    write(tmp_path, "etc/os-release", '# about\nNAME="Arch Linux"\nPRETTY_NAME="Arch"\nID=arch\n')
    found = operating_system(tmp_path)
    assert (found.family, found.name, found.version) == ("linux", "Arch Linux", None)
    assert found.kernel


async def test_it_is_taken_once() -> None:
    """Nothing of it changes under a running program."""
    taken: list[GpuReader] = []

    def take(gpus: GpuReader) -> Snapshot:
        taken.append(gpus)
        return capture(gpus)

    hardware = Hardware(gpus=Cards(), take=take)
    assert await hardware.snapshot() is await hardware.snapshot()
    assert len(taken) == 1


async def test_a_machine_that_cannot_be_told_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """In llama-swap's words."""
    monkeypatch.setattr("bioproxy.admin.hardware.memory_of_machine", lambda: None)
    with pytest.raises(BioproxyError, match=r"^hardware detection unavailable$") as caught:
        await Hardware(gpus=Cards()).snapshot()
    assert caught.value.status == 503


async def test_this_machine_can_be_told() -> None:
    """The real readers."""
    found = await Hardware().snapshot()
    assert found.memory.capacity_bytes == memory_of_machine()
    assert found.architecture.name
    assert (found.cpu.logical_thread_count or 0) > 0
