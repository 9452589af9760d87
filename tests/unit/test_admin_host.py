"""Reading the machine: made-up `/proc` trees, psutil, and this very machine."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from bioproxy.admin.host import (
    Core,
    Files,
    Host,
    Memory,
    Psutil,
    Reading,
    core_of,
    optional,
    sample,
    this_host,
    utilisation,
)
from bioproxy.metrics_host import Interface

NOW = datetime(2026, 11, 24, tzinfo=UTC)
STAT = """\
cpu  30 0 10 160 0 0 0 0 0 0
cpu0 10 5 20 50 10 1 2 2 7 3
cpu1 0 0 0 100 0 0 0 0 0 0
intr 12345 1 2 3
ctxt 99
"""
MEMINFO = """\
MemTotal:       16000 kB
MemFree:         1000 kB
MemAvailable:    6000 kB
Buffers:          200 kB
Cached:          4000 kB
SwapTotal:       2048 kB
SwapFree:        1024 kB
HugePages_Total:    0
"""
NET = """\
Inter-|   Receive                            |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     500       5    0    0    0     0    0    0      500       5    0    0    0     0       0          0
wlan0: 7 1 0 0 0 0 0 0 8 1 0 0 0 0 0 0
  eth0:    1000      10    0    0    0     0    0    0     2000      20    0    0    0     0       0          0
"""


def tree(root: Path, **files: str) -> Path:
    """A /proc below `root`; `net_dev` is net/dev."""
    (root / "proc" / "net").mkdir(parents=True)
    for name, text in files.items():
        (root / "proc" / name.replace("_", "/")).write_text(text)
    return root


def test_linux_files_tell_everything(tmp_path: Path) -> None:
    """Cores, memory, load and network of a machine without psutil."""
    root = tree(tmp_path, stat=STAT, meminfo=MEMINFO, net_dev=NET, loadavg="0.50 0.25 0.10 1/234 5678\n")
    assert Files(root).read() == Reading(
        cores=(Core(busy=40, total=100), Core(busy=0, total=100)),
        memory=Memory(total=16000 << 10, available=6000 << 10, swap_total=2 << 20, swap_used=1 << 20),
        load=(0.5, 0.25, 0.1),
        network=(
            Interface(name="eth0", bytes_recv=1000, bytes_sent=2000),
            Interface(name="wlan0", bytes_recv=7, bytes_sent=8),
        ),
    )


def test_an_old_kernel_says_what_is_available_in_parts(tmp_path: Path) -> None:
    """Without MemAvailable it is free memory and caches."""
    old = "".join(row for row in MEMINFO.splitlines(keepends=True) if not row.startswith(("MemAvailable", "Swap")))
    memory = Files(tree(tmp_path, meminfo=old)).read().memory
    assert memory == Memory(total=16000 << 10, available=5200 << 10)


def test_without_proc_nothing_is_known_but_the_load(tmp_path: Path) -> None:
    """A system that has no such files; no error comes of it."""
    reading = Files(tmp_path).read()
    assert (reading.cores, reading.memory, reading.network) == (None, None, None)
    assert reading.load is None or len(reading.load) == 3


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu0 a b c\n", "MemTotal: many kB\n", "\x00\xff", "a: 1 2 3\n" * 3])
def test_garbage_is_unknown_and_no_fault(tmp_path: Path, text: str) -> None:
    """Whatever stands in these files, reading goes on with the rest."""
    reading = Files(tree(tmp_path, stat=text, meminfo=text, loadavg=text, net_dev=text)).read()
    assert reading.cores is None
    assert reading.memory is None
    assert not reading.network


def test_psutil_counts_guests_once() -> None:
    """Linux has a guest's time in `user` already; iowait is idle."""
    times = {"user": 10, "nice": 5, "system": 20, "idle": 50, "iowait": 10, "irq": 1, "softirq": 2, "steal": 2}
    assert core_of({**times, "guest": 7, "guest_nice": 3}) == Core(busy=40, total=100)
    assert core_of({"user": 1, "system": 2, "idle": 7}) == Core(busy=3, total=10)


class Broken:
    """A psutil that fails at every call."""

    def __getattr__(self, name: str) -> object:
        raise NotImplementedError(name)


def test_a_psutil_that_does_not_work_here_is_unknown() -> None:
    """Each figure on its own: one that is missing costs no other."""
    assert Psutil(Broken()).read() == Reading()  # type: ignore[arg-type]


def test_a_module_that_is_not_installed_is_none() -> None:
    """Extras are optional."""
    assert optional("bioproxy_has_no_such_module") is None
    assert isinstance(this_host(), Psutil)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("host", [Files(), Psutil(psutil)], ids=["files", "psutil"])
def test_this_machine_can_be_read(host: Host) -> None:
    """Both readers agree with what Python says."""
    reading = host.read()
    assert reading.cores is not None
    assert len(reading.cores) == os.cpu_count()
    assert reading.memory is not None
    assert reading.memory.total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < reading.memory.available <= reading.memory.total
    assert reading.load is not None
    assert reading.network is not None
    assert "lo" not in {one.name for one in reading.network}


def test_a_sample_compares_two_readings() -> None:
    """Percent per core since the last look, whole megabytes."""
    before = Reading(cores=(Core(10, 100), Core(50, 100)))
    memory = Memory(total=10 << 20, available=(4 << 20) - 1, swap_total=2 << 20, swap_used=1 << 20)
    now = Reading(cores=(Core(35, 200), Core(150, 200)), memory=memory, load=(1.0, 2.0, 3.0), network=())
    taken = sample(before, now, at=NOW)
    assert taken.cpu_util_per_core == (25.0, 100.0)
    assert (taken.mem_total_mb, taken.mem_used_mb, taken.mem_free_mb) == (10, 6, 3)
    assert (taken.swap_total_mb, taken.swap_used_mb) == (2, 1)
    assert (taken.load_avg_1, taken.load_avg_5, taken.load_avg_15) == (1.0, 2.0, 3.0)
    assert taken.net_io == ()


def test_the_first_sample_knows_no_utilisation() -> None:
    """One look says how busy cores were since the machine came up, which is not what is asked."""
    assert sample(None, Reading(cores=(Core(1, 2),)), at=NOW).cpu_util_per_core == ()


def test_what_cannot_be_read_is_absent() -> None:
    """A sample of nothing has a time only."""
    taken = sample(None, Reading(), at=NOW)
    assert {getattr(taken, name) for name in taken.__struct_fields__ if name != "timestamp"} == {UNSET}


TICKS = st.floats(min_value=0, max_value=1e12)


@given(st.lists(st.tuples(TICKS, TICKS, TICKS, TICKS)))
def test_utilisation_is_a_percentage(cores: list[tuple[float, float, float, float]]) -> None:
    """Whatever the counters do, run backwards too."""
    before = [Core(busy, total) for busy, total, _, _ in cores]
    after = [Core(busy, total) for _, _, busy, total in cores]
    assert all(0.0 <= percent <= 100.0 for percent in utilisation(before, after))


def test_cores_that_came_or_went_are_not_compared() -> None:
    """A hot-plugged processor makes one sample without utilisation."""
    assert utilisation([Core(0, 1)], [Core(0, 2), Core(0, 2)]) == ()
