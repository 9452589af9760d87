"""The monitor: what it keeps, when it looks, and the answer of `/api/performance`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.admin.gpus import Gpu
from bioproxy.admin.host import Core, Memory, Reading
from bioproxy.admin.performance import Monitor, performance
from bioproxy.config.dialect.schema import Performance
from bioproxy.errors import RequestError
from bioproxy.metrics_page import of_host

START = datetime(2026, 11, 24, 6, 20, tzinfo=UTC)
OFTEN = Performance(every=0.001)
LATER = Performance(every=600.0)


class Machine:
    """A machine whose first core computes all the time; it counts the looks and says in which thread they were."""

    def __init__(self) -> None:
        self.looks = 0
        self.threads: set[int] = set()
        self.cards = [Gpu(vendor="X", name="card", uuid="u", temperature=50)]
        self.reached: dict[int, asyncio.Event] = {}
        self.loop = asyncio.get_running_loop()

    def when(self, looks: int) -> asyncio.Event:
        """Set by the look of this number."""
        return self.reached.setdefault(looks, asyncio.Event())

    def read(self) -> Reading:
        self.looks += 1
        self.threads.add(threading.get_ident())
        if self.looks in self.reached:
            self.loop.call_soon_threadsafe(self.reached[self.looks].set)
        busy = float(self.looks)
        return Reading(
            cores=(Core(busy, busy), Core(0, busy)), memory=Memory(total=8 << 30, available=2 << 30), network=()
        )


class Cards:
    """The GPUs of a Machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def read(self) -> list[Gpu]:
        return self.machine.cards


class Clock:
    """A second passes with each look at it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def monitor_of(machine: Machine, settings: Performance = LATER) -> Monitor:
    return Monitor(settings, read=machine.read, gpus=Cards(machine), clock=Clock())


@asynccontextmanager
async def running(monitor: Monitor) -> AsyncIterator[None]:
    """The monitor's service, ended with the block."""
    task = aio.spawn(monitor.run(), name="performance")
    try:
        yield
    finally:
        await aio.finish([task])


def ask(monitor: Monitor | None, *query: tuple[str, str]) -> tuple[int, Any]:
    """Status and body, as a client reads it."""
    status, body = performance(monitor, query)
    return status, json.loads(msgspec.json.encode(body))


async def test_the_answer_has_llama_swaps_shape() -> None:
    """Every field of a sample, under llama-swap's name."""
    machine = Machine()
    monitor = monitor_of(machine)
    await monitor.look()
    await monitor.look()
    status, body = ask(monitor)
    assert (status, list(body), body["enabled"]) == (200, ["enabled", "sys_stats", "gpu_stats"], True)
    assert body["sys_stats"][1] == {
        "timestamp": "2026-11-24T06:20:02Z",
        "cpu_util_per_core": [100.0, 0.0],
        "mem_total_mb": 8192,
        "mem_used_mb": 6144,
        "mem_free_mb": 2048,
        "swap_total_mb": 0,
        "swap_used_mb": 0,
        "net_io": [],
    }
    assert body["gpu_stats"][1] == {
        "timestamp": "2026-11-24T06:20:02Z",
        "id": 0,
        "name": "card",
        "uuid": "u",
        "temp_c": 50,
        "vram_temp_c": 0,
        "gpu_util_pct": 0,
        "mem_util_pct": 0,
        "mem_used_mb": 0,
        "mem_total_mb": 0,
        "fan_speed_pct": 0,
        "power_draw_w": 0,
    }


async def test_after_gives_what_is_newer() -> None:
    """A page asks with the time of the newest sample that it has."""
    monitor = monitor_of(Machine())
    for _ in range(3):
        await monitor.look()
    _, body = ask(monitor, ("after", "2026-11-24T08:20:02+02:00"))
    assert [one["timestamp"] for one in body["sys_stats"]] == ["2026-11-24T06:20:03Z"]
    assert len(body["gpu_stats"]) == 1
    assert len(ask(monitor, ("after", ""))[1]["sys_stats"]) == 3


@pytest.mark.parametrize(
    "after", ["yesterday", "2026-11-24", "2026-11-24T06:20:02", "1764000000", "2026-13-24T06:20:02Z"]
)
async def test_an_after_that_is_no_time_is_refused(after: str) -> None:
    """400, in llama-swap's words."""
    with pytest.raises(RequestError, match=r"^invalid 'after' timestamp, use RFC3339 format$") as caught:
        ask(monitor_of(Machine()), ("after", after))
    assert caught.value.status == 400


async def test_switched_off_says_so() -> None:
    """503, whether there is no monitor or one that is off, and whatever `after` says."""
    off = monitor_of(Machine(), Performance(disabled=True))
    assert ask(None) == ask(off) == ask(off, ("after", "x")) == (503, {"enabled": False})


async def test_an_hour_is_kept() -> None:
    """As many samples as an hour has at this pace; older ones go."""
    monitor = monitor_of(Machine(), Performance(every=1800.0))
    for _ in range(5):
        await monitor.look()
    assert [look.system.timestamp.second for look in monitor.since(None)] == [4, 5]
    assert Monitor(Performance(every=5.0)).looks.maxlen == 720


async def test_it_looks_by_itself_and_in_a_thread() -> None:
    """The event loop never waits for a driver."""
    machine = Machine()
    async with running(monitor_of(machine, OFTEN)):
        await machine.when(3).wait()
    assert threading.get_ident() not in machine.threads


async def test_a_changed_pace_holds_at_once() -> None:
    """A reload need not wait for the end of a long pause; what was kept stays."""
    machine = Machine()
    monitor = monitor_of(machine)
    first, third = machine.when(1), machine.when(3)
    async with running(monitor):
        await first.wait()
        monitor.configure(OFTEN)
        await third.wait()
    assert monitor.since(None)[0].system.timestamp == START + timedelta(seconds=1)


async def test_it_can_be_switched_off_and_on() -> None:
    """Off, nothing is looked at and nothing old is shown; on, it goes on."""
    machine = Machine()
    monitor = monitor_of(machine, OFTEN)
    first = machine.when(1)
    async with running(monitor):
        await first.wait()
        monitor.configure(Performance(disabled=True))
        assert (monitor.since(None), monitor.newest()) == ([], None)
        again = machine.when(machine.looks + 2)
        monitor.configure(OFTEN)
        await again.wait()
    assert monitor.statistics().enabled


async def test_a_look_that_ends_after_the_switch_is_not_kept() -> None:
    """It was on its way when the operator said no."""
    machine = Machine()
    monitor = monitor_of(machine)
    look = aio.spawn(monitor.look(), name="look")
    await asyncio.sleep(0)
    monitor.configure(Performance(disabled=True))
    await look
    assert monitor.statistics().looks == 0


async def test_a_cancelled_look_leaves_the_monitor_whole() -> None:
    """A shutdown in mid-look, and the next look is a good one."""
    monitor = monitor_of(Machine())
    look = aio.spawn(monitor.look(), name="look")
    await asyncio.sleep(0)
    await aio.finish([look])
    assert look.cancelled()
    await monitor.look()
    assert monitor.statistics().looks == 1


async def test_metrics_show_the_newest_look() -> None:
    """Before the first one there are none."""
    machine = Machine()
    monitor = monitor_of(machine)
    assert monitor.newest() is None
    await monitor.look()
    machine.cards = []
    await monitor.look()
    newest = monitor.newest()
    assert newest is not None
    names = {family.name for family in of_host(newest)}
    assert "llamaswap_cpu_util_percent" in names
    assert not any(name.startswith("llamaswap_gpu") for name in names)
    assert (monitor.statistics().looks, monitor.statistics().gpus) == (2, 0)


async def test_this_machine_is_looked_at() -> None:
    """The real readers, twice, as the service does it."""
    monitor = Monitor(Performance())
    await monitor.look()
    await monitor.look()
    status, body = ask(monitor)
    assert status == 200
    assert body["sys_stats"][1]["mem_total_mb"] > 0
    assert len(body["sys_stats"][1]["cpu_util_per_core"]) > 0


async def test_a_machine_that_tells_nothing_is_no_fault() -> None:
    """Samples with a time, and nothing else."""
    monitor = Monitor(Performance(), read=Reading, gpus=Cards(Machine()))
    await monitor.look()
    [told] = ask(monitor)[1]["sys_stats"]
    assert set(told) == {"timestamp"}
