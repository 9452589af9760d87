"""Reading the machine: psutil, a psutil that fails, and this very machine."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from bioproxy.admin.host import (
    Core,
    Host,
    Memory,
    Reading,
    core_of,
    optional,
    sample,
    utilisation,
)

NOW = datetime(2026, 11, 24, tzinfo=UTC)


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
    assert Host(Broken()).read() == Reading()  # type: ignore[arg-type]


def test_a_module_that_is_not_installed_is_none() -> None:
    """Extras are optional."""
    assert optional("bioproxy_has_no_such_module") is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks what only POSIX has")
def test_this_machine_can_be_read() -> None:
    """Psutil agrees with what Python says."""
    reading = Host().read()
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
