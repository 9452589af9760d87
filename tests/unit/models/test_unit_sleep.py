"""An engine that sleeps between two lives (vLLM): woken by the next start, ended if anything goes wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.unit_rig import UnitRig, unit_rig


async def rest(rig: UnitRig) -> None:
    """A stop after which it may sleep."""
    await rig.unit.stop(grace=5.0, save=0.0, sleeps=True)
    assert not rig.gear.pool.statistics().open


@pytest.mark.parametrize(
    ("level", "wakes"),
    [
        (1, ["/wake_up"]),
        (2, ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache"]),
    ],
)
async def test_it_sleeps_and_wakes(level: int, wakes: list[str], tmp_path: Path) -> None:
    """The same process, with the routes of its level; an unload ends it."""
    async with unit_rig(tmp_path, "--sleeps", sleep=level) as rig:
        await rig.unit.start(list)
        pid = rig.unit.pid
        await rest(rig)
        assert rig.unit.asleep
        await rig.unit.start(list)
        assert (rig.unit.pid, rig.unit.asleep, rig.gear.open) == (pid, False, True)
        await rest(rig)
        await rig.unit.end_sleep()
        assert rig.unit.pid is None
    assert [one.path for one in rig.log.of("sleep")] == [f"/sleep?level={level}", *wakes, f"/sleep?level={level}"]


async def test_one_that_cannot_sleep_is_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says what it lacks."""
    async with unit_rig(tmp_path, sleep=1) as rig:
        await rig.unit.start(list)
        await rest(rig)
        assert rig.unit.pid is None
    assert "--enable-sleep-mode" in caplog.text or "is_sleeping" in caplog.text


async def test_one_that_does_not_wake_is_started_anew(tmp_path: Path) -> None:
    """Whoever waits for it gets another process."""
    async with unit_rig(tmp_path, "--sleeps --no-wake", sleep=1) as rig:
        await rig.unit.start(list)
        await rest(rig)
        pid = rig.unit.pid
        await rig.unit.start(list)
        assert rig.unit.pid not in (pid, None)
        await rig.unit.stop(grace=1.0, save=0.0)


async def test_one_that_died_in_its_sleep_is_started_anew(tmp_path: Path) -> None:
    """Nobody asks what is gone."""
    async with unit_rig(tmp_path, "--sleeps", sleep=1) as rig:
        await rig.unit.start(list)
        await rest(rig)
        await rig.unit.process.stop(grace=0.0)
        assert not rig.unit.asleep
        await rig.unit.start(list)
        await rig.unit.stop(grace=1.0, save=0.0)


async def test_one_whose_place_another_has_is_ended(tmp_path: Path) -> None:
    """A reload put another unit there while it ran."""
    async with unit_rig(tmp_path, "--sleeps", sleep=1) as rig:
        await rig.unit.start(list)
        rig.unit.may_sleep = False
        await rest(rig)
        assert rig.unit.pid is None
