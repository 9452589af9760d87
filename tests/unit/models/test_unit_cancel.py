"""A unit's start and stop, and a life, cancelled at each of their awaits: no process is left, and it is told once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from bioproxy import aio
from bioproxy.errors import ModelFailed
from bioproxy.models.effects import Stop
from bioproxy.models.life import Life, Lives, SwapTimes
from bioproxy.models.unit import Started, Stopped
from bioproxy.models.waits import Part
from support.leaks import cut
from support.unit_rig import UnitRig, unit_rig


async def test_a_start(tmp_path: Path) -> None:
    """Whatever it waited for, the stop that follows finds the process, and the next start works."""
    for at in range(30):
        async with unit_rig(tmp_path) as rig:
            was_cut = await cut(rig.unit.start(list), at)
            await rig.unit.stop(grace=0.0, save=0.0)
            assert rig.unit.pid is None
            await rig.gone()
            if at % 5 == 0:
                await rig.unit.start(list)
                await rig.unit.stop(grace=1.0, save=1.0)
        if not was_cut:
            return
    raise AssertionError("it never came to its end")


async def test_a_start_behind_a_lock_of_its_own(tmp_path: Path) -> None:
    """What is awaited before a start (leftovers being cleared) is cancelled like everything else."""
    async with unit_rig(tmp_path) as rig:
        waits = asyncio.Event()
        rig.unit.before = waits.wait
        assert await cut(rig.unit.start(list), 0)
        await rig.unit.stop(grace=0.0, save=0.0)
    assert rig.pids == []


async def test_a_stop(tmp_path: Path) -> None:
    """A life that is cancelled in the middle of its stop ends the process at once (life.py)."""
    for at in range(30):
        async with unit_rig(tmp_path, "--slow-stop 0.02") as rig:
            await rig.unit.start(list)
            was_cut = await cut(rig.unit.stop(grace=5.0, save=1.0), at)
            await rig.unit.end(0.0)
        if not was_cut:
            return
    raise AssertionError("it never came to its end")


async def test_a_stop_by_command(tmp_path: Path) -> None:
    """The command's own process does not stay either."""
    for at in range(30):
        async with unit_rig(tmp_path, "--ignore-sigterm", stop_words=("sleep", "0.01")) as rig:
            await rig.unit.start(list)
            was_cut = await cut(rig.unit.stop(grace=0.05, save=1.0), at)
            await rig.unit.end(0.0)
        if not was_cut:
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("fault", ["save", "detach"])
async def test_a_fault_before_the_end_does_not_save_the_process(fault: str, tmp_path: Path) -> None:
    """It is told, and the process is gone: two of one model must never run."""
    async with unit_rig(tmp_path) as rig:
        await rig.unit.start(list)
        rig.gear.faults.add(fault)
        with pytest.raises(RuntimeError, match=f"a fault in {fault}"):
            await rig.unit.stop(grace=1.0, save=1.0)
        await rig.gone()


async def test_a_fault_when_it_died_is_told(tmp_path: Path) -> None:
    """The reason of its end is not lost behind a fault of ours in letting go of it."""
    async with unit_rig(tmp_path, "--die-after-ready 0") as rig:
        host = Hears()
        life = Life(rig.unit, 1, times=SwapTimes(0.0), lives=cast("Lives", host))
        rig.gear.faults.add("detach")
        await asyncio.wait_for(life.live(), 25.0)
        assert len(host.over) == 1


class Hears:
    """Who hears of a life."""

    def __init__(self) -> None:
        self.over: list[str] = []
        self.ready: list[Started] = []
        self.stages: list[Part] = []
        self.is_up = asyncio.Event()

    def wants(self, model: str) -> list[object]:
        """Nothing."""
        del model
        return []

    def save_limit(self, order: Stop) -> float:
        """A second."""
        del order
        return 1.0

    def stage(self, life: Life, part: Part) -> None:
        """How far it is."""
        del life
        self.stages.append(part)

    def is_ready(self, life: Life, started: Started) -> None:
        """It is ready."""
        del life
        self.ready.append(started)
        self.is_up.set()

    def is_stopped(self, order: Stop, stopped: Stopped) -> None:
        """It was stopped."""

    async def port_is_left(self, life: Life) -> None:
        """At once."""

    def is_over(self, life: Life, reason: str, *, died: bool) -> None:
        """No process is left."""
        del life, died
        self.over.append(reason)


STOP = Stop("a", 1, "unload", 1.0)


async def test_a_life(tmp_path: Path) -> None:
    """Cancelled by the end of the program wherever it is: its process goes first, then its end is told, once."""
    for at in range(30):
        async with unit_rig(tmp_path) as rig:
            host = Hears()
            life = Life(rig.unit, 1, times=SwapTimes(0.0), lives=cast("Lives", host))
            orders = aio.spawn(order_when_ready(host, life), name="orders")
            was_cut = await cut(life.live(), at)
            orders.cancel()
            await rig.gone()
            assert len(host.over) == 1
        if not was_cut:
            assert host.over == [""]
            return
    raise AssertionError("it never came to its end")


async def order_when_ready(host: Hears, life: Life) -> None:
    """Have it stop as soon as it is ready."""
    await host.is_up.wait()
    life.stop_for(STOP)


@pytest.mark.parametrize("words", ["--start-delay 60", "--health-503-for 60", "--health-never"])
async def test_an_order_in_a_start(words: str, tmp_path: Path) -> None:
    """Wherever the start is: it ends, the process goes, and that is no failure."""
    async with unit_rig(tmp_path, words) as rig:
        host, life = await starting(rig)
        life.stop_for(STOP)
        assert life.task is not None
        await life.task
        assert (host.over, host.ready) == ([""], [])


async def test_an_order_while_it_is_attached_to(tmp_path: Path) -> None:
    """The engine is healthy already; nobody is let at it."""
    async with unit_rig(tmp_path) as rig:
        rig.gear.may_attach.clear()
        host, life = await starting(rig)
        await until_attached(rig)
        life.stop_for(STOP)
        assert life.task is not None
        await life.task
        assert (host.over, host.ready) == ([""], [])
        assert not rig.gear.open


async def test_a_process_that_dies_while_it_is_attached_to(tmp_path: Path) -> None:
    """That is a start that failed, with its last words."""
    async with unit_rig(tmp_path, "--die-after-ready 0.05 --say farewell") as rig:
        rig.gear.may_attach.clear()
        with pytest.raises(ModelFailed, match=r"exited prematurely(.|\n)*farewell"):
            await rig.unit.start(list)
        assert rig.unit.pid is None


async def starting(rig: UnitRig) -> tuple[Hears, Life]:
    """A life that begins, in a task of its own, and whose process has been started."""
    host = Hears()
    life = Life(rig.unit, 1, times=SwapTimes(0.0), lives=cast("Lives", host))
    life.task = aio.spawn(life.live(), name="life")

    async def look() -> bool | None:
        return bool(rig.pids) or None

    assert await aio.poll(look, interval=0.005, deadline=30.0)
    return host, life


async def until_attached(rig: UnitRig) -> None:
    """Wait until the gear was asked to attach."""

    async def look() -> bool | None:
        return "attach" in rig.gear.calls or None

    assert await aio.poll(look, interval=0.005, deadline=30.0)


async def test_a_second_cancellation_does_not_cut_what_is_shielded() -> None:
    """A client that leaves is told of twice: its connection is cut, and then it is lost."""
    may_end, ended = asyncio.Event(), []

    async def work() -> None:
        await may_end.wait()
        ended.append(True)

    task = aio.spawn(aio.shielded(work()), name="shielded")
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended
