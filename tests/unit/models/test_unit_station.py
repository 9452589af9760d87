"""What goes with an engine, attached to and let go of: cancelled at each await, and with slots that hang."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bioproxy import aio
from bioproxy.config.schema import Config
from support.apps import MS
from support.kv_rig import text
from support.leaks import cut, until
from support.station_rig import LONG, StationRig, station_rig


async def at_each_await(rig: StationRig, name: str) -> int:
    """Begin a life, cancel `attach`, `save` or `detach` at one await after the other, let go each time; how many."""
    for at in range(60):
        if name == "attach":
            was_cut = await cut(rig.begin(), at)
        else:
            await rig.begin()
            work = rig.station.save(1.0) if name == "save" else rig.station.detach("cut")
            was_cut = await cut(work, at)
        await rig.station.detach("it is being stopped")
        await until(rig.is_shut)  # what was shared by several askers ends with its connection
        if not was_cut:
            return at
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("name", ["attach", "save", "detach"])
async def test_cancelled_anywhere(name: str, tmp_path: Path) -> None:
    """Afterwards it is shut, and the next life works."""
    async with station_rig(tmp_path) as rig:
        assert await at_each_await(rig, name) >= 1
        await rig.begin()
        asked = await rig.ask(LONG)
        assert asked.evaluated > 300
        assert not rig.gate.draining


async def test_a_save_that_is_cancelled_goes_to_its_end(tmp_path: Path) -> None:
    """A slot action that nobody waits for would strike in the next life (kv-rule 4)."""
    async with station_rig(tmp_path) as rig:
        await rig.fill(save_seconds=200 * MS)
        task = aio.spawn(rig.station.save(5.0), name="save")
        await rig.saving()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await rig.settle()
        assert len(rig.keeper.list()) == 1


@pytest.mark.parametrize("fault", [{"save_seconds": 60.0}, {"stuck": True}])
async def test_a_save_that_hangs_has_its_limit(fault: dict[str, object], tmp_path: Path) -> None:
    """The swap goes on without it, after `limit` seconds and not after a task's patience on top of it."""
    async with station_rig(tmp_path) as rig:
        await rig.fill(**fault)
        async with asyncio.timeout(30.0):
            await rig.station.save(0.2)
            await rig.station.detach("it is being stopped")
        assert rig.is_shut()


async def test_an_idle_save_that_hangs_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """It is under way, shielded, when the model has to go; the engine's end ends it."""
    async with station_rig(tmp_path, save_after=1 * MS) as rig:
        await rig.begin()
        await rig.fake.faults(save_seconds=60.0)
        await rig.fake.forget()
        await rig.ask(LONG)
        await rig.saving()
        async with asyncio.timeout(30.0):
            await rig.station.save(0.2)
            await rig.station.detach("it is being stopped")
        assert rig.is_shut()


async def test_a_warm_ups_save_that_hangs_has_its_limit_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is shielded as well; that its engine hangs is said as that, and is no error of ours."""
    (tmp_path / "code.txt").write_text(f"{text(2_000, 'code')}<{{message}}>")
    async with station_rig(tmp_path, templates={"@code": str(tmp_path / "code.txt")}) as rig:
        await rig.begin()
        await rig.fake.faults(save_seconds=60.0)
        await rig.fake.forget()
        await rig.saving()
        async with asyncio.timeout(30.0):
            await rig.station.save(0.2)
            await rig.station.detach("it is being stopped")
        assert rig.is_shut()
        assert [one.getMessage() for one in caplog.records if one.name == "bioproxy.station"] == [
            "a did not end a warm-up's save within 0.2 s: what it holds is not saved"
        ]
        assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_a_save_after_a_client_left_waits_until_the_engine_is_seen_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer: that the save waits is no reason not to look."""
    monkeypatch.setattr("bioproxy.station.SETTLE_SECONDS", 50 * MS)
    async with station_rig(tmp_path) as rig:
        await rig.fill()
        (await rig.gate.acquire()).release(cut=True)
        assert rig.gate.draining
        await rig.station.save(8.0)
        await rig.settle()
        assert len(rig.keeper.list()) == 1


async def test_a_request_that_must_be_alone_after_a_client_left_waits_until_the_engine_is_seen_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has its grant, but nothing in the engine (`kv.isolate: strict`): that it waits is no reason not to look."""
    monkeypatch.setattr("bioproxy.station.SETTLE_SECONDS", 50 * MS)
    async with station_rig(tmp_path) as rig:
        await rig.begin()
        (await rig.gate.acquire()).release(cut=True)
        grant = await rig.gate.acquire()
        assert await grant.wait_exclusive(30.0)
        grant.release(unsent=True)


async def test_what_a_warm_up_has_begun_ends_before_the_save(tmp_path: Path) -> None:
    """Cut off, it would keep slot actions away until the engine was seen idle, and the swap would wait for nothing."""
    (tmp_path / "code.txt").write_text(f"{text(20_000, 'code')}<{{message}}>")
    async with station_rig(tmp_path, templates={"@code": str(tmp_path / "code.txt")}) as rig:
        await rig.begin()
        await rig.fake.faults(stuck=True)
        await rig.fake.until(lambda state: state["slots"][0]["busy"])  # with a chunk that does not end from now on
        assert rig.gate.running == 1
        saving = aio.spawn(rig.station.save(5.0), name="save")
        await until(lambda: rig.station.runner.facts is None)
        assert rig.gate.running == 1
        await rig.fake.faults(stuck=False)
        await saving
        assert rig.gate.cuts == 0
        assert not rig.gate.draining


@pytest.mark.parametrize(
    ("keys", "state"),
    [
        pytest.param((), "conversation", id="no keys"),
        pytest.param(("sk-1", "sk-2"), "empty", id="two keys"),
    ],
)
async def test_a_load_that_nobody_waits_for_brings_back_what_anybody_may_have(
    keys: tuple[str, ...], state: str, tmp_path: Path
) -> None:
    """Rule 22: one group's conversation is not put where another group's request would find it."""
    async with station_rig(tmp_path, config=Config(api_keys=keys)) as rig:
        await rig.begin()
        await rig.ask(LONG, group="one of them" if keys else "")
        await rig.restart_alone()
        await rig.keeper.moments.fill()
        assert rig.keeper.statistics().slots[0].state == state


async def test_an_empty_slot_is_filled_while_nobody_asks(tmp_path: Path) -> None:
    """Rule 21: whoever asks first after a start does not wait for the restore."""
    async with station_rig(tmp_path) as rig:
        await rig.begin()
        first = await rig.ask(LONG)
        await rig.restart_alone()
        await until(lambda: rig.keeper.residents.slots[0].brought is not None and rig.gate.idle)
        await rig.fake.forget()
        again = await rig.ask(LONG, first.answer, " more")
        assert (again.prepared.status, again.prepared.seconds, again.evaluated < 10) == ("restored", 0.0, True)
        assert [one.target for one in await rig.fake.requests()] == ["/completion"]


@pytest.mark.parametrize("fault", ["full", "short", "lost"])
async def test_a_save_that_fails(fault: str, tmp_path: Path) -> None:
    """Nothing is raised, nothing is kept, and the next life goes on without."""
    async with station_rig(tmp_path) as rig:
        await rig.fill(save=fault)
        await rig.station.save(1.0)
        await rig.station.detach("it is being stopped")
        assert rig.is_shut()
        assert not rig.keeper.list()
        await rig.begin()
        assert (await rig.ask(LONG)).cached > 300  # the engine lived on


async def test_an_engine_that_dies_while_it_is_met(tmp_path: Path) -> None:
    """The start comes to its end as soon as the unit lets go."""
    async with station_rig(tmp_path) as rig:
        await rig.fake.faults(answer="hang", paths=["/slots", "/v1/models", "/tokenize", "/completion"])
        task = aio.spawn(rig.begin(), name="attach")
        await asyncio.sleep(20 * MS)
        await rig.fake.kill()
        await aio.finish([task])
        await rig.station.detach("its process ended")
        assert rig.is_shut()
