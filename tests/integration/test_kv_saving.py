"""Saving on the fake engine: when it happens, what stops it, and that it goes on by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy import aio
from bioproxy.events import Event, SavingPaused, SnapshotDropped, SnapshotSaved
from bioproxy.gate.gate import Gate
from bioproxy.kv.budget import values_of
from fakes.fake_engine import FakeEngine
from support.config_files import settings
from support.kv_rig import HeldCommit, Rig, rig, text

SPEED = 5000  # prompt tokens per second
LONG = text(500, "a")
NEVER = 1000.0


def fake(one: Rig) -> FakeEngine:
    """The engine, which is a fake one here."""
    assert isinstance(one.engine, FakeEngine)
    return one.engine


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer says anything about the engine's speed: a token is worth what it is before one was measured."""
    monkeypatch.setattr("bioproxy.kv.policy.ENOUGH", 1 << 30)


@asynccontextmanager
async def started(
    folder: Path, *, engine: dict[str, Any] | None = None, options: dict[str, Any] | None = None, **config: Any
) -> AsyncIterator[Rig]:
    """A fake engine with a keeper; `engine` are its flags, `options` the keeper's."""
    flags = {"tokens_per_second": SPEED, **(engine or {})}
    async with FakeEngine(slot_folder=folder, **flags) as process, rig(process, options=options, **config) as one:
        yield one


@asynccontextmanager
async def serving(one: Rig) -> AsyncIterator[None]:
    """The keeper's background service."""
    task = aio.spawn(one.keeper.run(), name="kv")
    try:
        yield
    finally:
        await aio.finish([task])


async def hear(one: Rig, kind: type[Event], *, count: int = 1) -> None:
    """Wait until `count` events of a class were published in all."""
    enough = asyncio.Event()

    def listen(_event: Event) -> None:
        if len(one.heard(kind)) >= count:
            enough.set()

    one.bus.subscribe(Event, listen)
    if len(one.heard(kind)) < count:
        async with asyncio.timeout(30):
            await enough.wait()


def pass_time(one: Rig, *, days: float) -> None:
    """Let the keeper believe that it is later."""
    now = one.keeper.tenant.shelf.wall() + days * 86400
    one.keeper.tenant.shelf.wall = lambda: now


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return [path.name for path in folder.glob("bp-tmp-*")]


# when


async def test_a_conversation_is_saved_once_the_engine_is_idle(tmp_path: Path) -> None:
    """Rule 17: after `kv.save_after` without a request."""
    async with started(tmp_path, save_after=0.05, save_every=NEVER) as one, serving(one):
        await one.ask(LONG)
        await hear(one, SnapshotSaved)
        assert one.keeper.statistics().slots[0].saved


async def test_a_busy_engine_saves_at_the_next_free_moment(tmp_path: Path) -> None:
    """Rule 17: `kv.save_every` after it grew at the latest, although it is never idle for long."""
    async with started(tmp_path, save_after=NEVER, save_every=0.1) as one, serving(one):
        await one.ask(LONG)
        await hear(one, SnapshotSaved)


@pytest.mark.usefixtures("unmeasured")
async def test_nothing_is_saved_twice(tmp_path: Path) -> None:
    """Rule 17: without growth there is nothing new worth keeping; a short turn is not either."""
    async with started(tmp_path, min_seconds=0.1) as one:
        first = await one.ask(LONG)
        assert await one.save_idle() == 1
        assert await one.save_idle() == 0
        await one.ask(LONG, first.answer, " yes")
        assert await one.save_idle() == 0


async def test_a_longer_turn_replaces_its_ancestor(tmp_path: Path) -> None:
    """Rule 17: one file per conversation, however often it is saved."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.save_idle()
        await one.ask(LONG, first.answer, text(200, " and then"))
        assert await one.save_idle() == 1
        assert len(one.keeper.list()) == 1
        assert [event.reason for event in one.heard(SnapshotDropped)] == ["replaced"]


async def test_a_save_waits_for_users(tmp_path: Path) -> None:
    """No user ever waits for a save that could wait for him: the running request goes first."""
    async with started(tmp_path, save_after=0.0, save_every=0.0) as one:
        await one.ask(LONG)
        grant = await one.gate.acquire()
        async with serving(one):

            async def waits() -> bool | None:
                return bool(one.gate.queue.waiting["background"]) or None

            assert await aio.poll(waits, interval=0.005, deadline=30)
            assert one.heard(SnapshotSaved) == []
            grant.release()
            await hear(one, SnapshotSaved)


async def test_the_grant_goes_back_before_the_disk_is_waited_for(tmp_path: Path) -> None:
    """Rule 1: fsync and rename hold nobody up."""
    step = HeldCommit()
    async with started(tmp_path, options={"step": step}) as one:
        one.keeper.tenant.step = lambda _name: None
        await one.ask(LONG)
        one.keeper.tenant.step = step
        grant = await one.gate.acquire(work="background", exclusive=True)
        assert await one.keeper.moments.save_idle(grant) == 1
        grant.release()
        await asyncio.to_thread(step.blocked.wait, 10)
        assert one.heard(SnapshotSaved) == []
        assert (await one.ask(LONG, " more", store=False)).evaluated < 10
        step.go_on.set()
        await one.settle()
        assert len(one.heard(SnapshotSaved)) == 1


async def test_snapshots_are_private(tmp_path: Path) -> None:
    """Rule 11: 0700 and 0600, for they hold what was said."""
    folder = tmp_path / "slots"
    folder.mkdir(mode=0o755)
    async with started(folder) as one:
        await one.ask(LONG)
        await one.save_idle()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert (stat.S_IMODE(folder.stat().st_mode), modes) == (0o700, {0o600})


async def test_what_somebody_else_left_in_the_slot_is_not_saved_as_ours(tmp_path: Path) -> None:
    """A client that goes past us: the count of tokens gives it away."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await fake(one).post("/completion", {"prompt": text(100, "past bioproxy"), "n_predict": 1})
        assert await one.save_idle() == 0
        assert one.keeper.list() == ()
        assert leftovers(tmp_path) == []
        assert one.keeper.statistics().slots[0].state == "unknown"


# what stops it


@pytest.mark.parametrize(("fault", "kind"), [("full", "engine"), ("short", "short"), ("lost", "short")])
async def test_a_full_disk_stops_saving_until_it_is_over(
    tmp_path: Path, fault: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """500, or 200 for a cut file, or no file: requests are served, one warning, one event, and it goes on by itself."""
    async with started(tmp_path, options={"first_retry": 0.0}) as one:
        await fake(one).faults(save=fault)
        first = await one.ask(LONG)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert await one.save_idle() == 0
        paused = [record.getMessage() for record in caplog.records if "paused" in record.getMessage()]
        assert len(paused) == 1
        assert one.keeper.statistics().paused == kind
        assert leftovers(tmp_path) == []
        assert (await one.ask(LONG, first.answer, " more")).evaluated < 10
        await fake(one).faults(save="")
        assert await one.save_idle() == 1
        assert [event.paused for event in one.heard(SavingPaused)] == [True, False]
        assert one.keeper.statistics().paused == ""


async def test_what_was_written_before_the_trouble_does_not_end_it(tmp_path: Path) -> None:
    """Its commit may end after a later save has failed."""
    async with started(tmp_path, options={"first_retry": 0.0}) as one:
        await one.settle()
        async with one.keeper.tenant.shelf.writing:  # a slow disk
            assert await one.warm(LONG, settle=False)
            await fake(one).faults(save="full")
            await one.ask(LONG, "and then?")
            assert await one.save_idle(settle=False) == 0
        await one.settle()
        assert len(one.keeper.list()) == 1
        assert one.keeper.statistics().paused == "engine"


async def test_what_the_engine_does_not_save_concerns_that_content_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """501 for a slot with an image, on older builds: not asked again for it nor for what goes on from it."""
    async with started(tmp_path) as one:
        picture = await one.ask(LONG)
        await fake(one).faults(save="media")
        assert await one.save_idle() == 0
        await fake(one).faults(save="")
        await fake(one).forget()
        assert await one.save_idle() == 0
        await one.ask(LONG, picture.answer, text(300, " and then?"))
        assert await one.save_idle() == 0
        assert [request.target for request in await fake(one).requests() if "save" in request.target] == []
        found = one.keeper.statistics()
        assert (found.paused, found.refused) == ("", {"content": 1})
        assert "not supported by multimodal" in found.slots[0].unsavable
        await one.ask(text(500, "words only"))
        assert await one.save_idle() == 1
        assert one.keeper.statistics().slots[0].unsavable == ""
    assert len([line for line in caplog.messages if "does not save this content" in line]) == 1
    assert not any("is paused" in line for line in caplog.messages)


async def test_an_engine_that_came_back_is_asked_again(tmp_path: Path) -> None:
    """It may be another build, which saves images too."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await fake(one).faults(save="media")
        await one.save_idle()
        await fake(one).restart()
        one.keeper.gone("restarted")
        await one.attach()
        await one.ask(LONG)
        assert await one.save_idle() == 1


async def test_a_pause_is_retried_later_and_later(tmp_path: Path) -> None:
    """While paused, nothing is asked of the engine before its time."""
    async with started(tmp_path, options={"first_retry": NEVER}) as one:
        await fake(one).faults(save="full")
        await one.ask(LONG)
        await one.save_idle()
        await fake(one).forget()
        assert await one.save_idle() == 0
        assert await fake(one).requests() == []


async def test_what_must_stay_free_stays_free(tmp_path: Path) -> None:
    """Rule 18: `kv.min_free` is never touched; the engine is not even asked."""
    async with started(tmp_path, min_free=1 << 60) as one:
        await one.ask(LONG)
        await fake(one).forget()
        assert await one.save_idle() == 0
        assert one.keeper.statistics().paused == "min_free"
        assert "kv.min_free" in one.keeper.statistics().reason
        assert await fake(one).requests() == []


async def test_the_disk_is_spared(tmp_path: Path) -> None:
    """Rule 18: `kv.write_budget` bytes a day; the next day it goes on."""
    async with started(tmp_path, write_budget=60_000, options={"first_retry": 0.0}) as one:
        for number in range(2):
            await one.ask(text(500, f"conversation {number}"))
            await one.save_idle()
        assert one.keeper.statistics().paused == "write_budget"
        written = one.keeper.statistics().written_today
        assert written <= 60_000
        pass_time(one, days=1)
        await one.keeper.moments.look_after()
        assert one.keeper.statistics().paused == ""
        assert await one.save_idle() == 1


async def test_the_budget_throws_out_the_least_valuable(tmp_path: Path) -> None:
    """Rule 18: old conversations go, the template in use stays."""
    async with started(tmp_path, disk_budget=130_000) as one:
        assert await one.warm(text(500, "template"))
        for number in range(4):
            await one.ask(text(500, f"conversation {number}"))
            pass_time(one, days=20)
            assert await one.save_idle() == 1
        statistics = one.keeper.statistics()
        assert statistics.bytes <= 130_000
        assert [found.template for found in one.keeper.list()].count(True) == 1
        assert {event.reason for event in one.heard(SnapshotDropped)} == {"budget"}


async def test_a_tool_loop_of_an_old_conversation_leaves_the_current_template_in_use(tmp_path: Path) -> None:
    """Rule 18: its last user message has an answer behind it, so it is filled in from its pin, an older version."""
    async with started(tmp_path, options={"versions": lambda: {"@code": "2"}}) as one:
        for version in ("1", "2"):
            await one.warm(text(300, version), version=version)
        await one.ask(text(300, "1"), " and the tool says", template=True, prefix="@code", version="1", store=False)
        shelf = one.keeper.tenant.shelf
        ranks = {one.id: one.rank for one in values_of(shelf.index.snapshots.values(), shelf.outlook())}
        found = {snapshot.version: ranks[snapshot.id] for snapshot in one.keeper.list()}
        assert found == {"1": 1, "2": 2}


async def test_a_snapshot_larger_than_the_budget_is_not_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """details, KV: said once and counted; saving others goes on."""
    async with started(tmp_path, disk_budget=20_000) as one:
        with caplog.at_level(logging.WARNING):
            for number in range(2):
                await one.ask(text(500, f"large {number}"))
                assert await one.save_idle() == 0
        assert len([record for record in caplog.records if "disk budget" in record.getMessage()]) == 1
        assert set(one.keeper.statistics().refused) == {"too_large"}
        await one.ask(text(100, "small"))
        assert await one.save_idle() == 1


@pytest.mark.usefixtures("unmeasured")
async def test_a_full_budget_is_not_cleared_for_something_worth_less(tmp_path: Path) -> None:
    """Or two templates in a budget for one would throw each other out for ever."""
    async with started(tmp_path, disk_budget=60_000) as one:
        assert await one.warm(text(500, "one"), prefix="@one")
        one.keeper.tenant.knowledge.learn(prefill=one.keeper.speeds.prefill / 2)  # a token is worth less than before
        assert not await one.warm(text(480, "two"), prefix="@two")
        assert [found.prefix for found in one.keeper.list()] == ["@one"]
        assert one.keeper.statistics().refused == {"budget": 1}


async def test_old_snapshots_go(tmp_path: Path) -> None:
    """`kv.max_age` after their last use."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        pass_time(one, days=31)
        await one.keeper.moments.look_after()
        assert one.keeper.list() == ()
        assert [event.reason for event in one.heard(SnapshotDropped)] == ["aged"]


async def test_old_snapshots_are_read_again_while_no_model_has_anything_to_do(tmp_path: Path) -> None:
    """Not while another model works: both share the disk and the processor."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        await one.save_idle()
        pass_time(one, days=8)
        shelf, other = one.keeper.tenant.shelf, Gate(settings())
        one.keeper.tenant.shelves.gates.add(other)
        running = await other.acquire()
        await one.keeper.moments.look_after()
        assert shelf.ledger.read == 0
        running.release()
        await one.keeper.moments.look_after()
        assert shelf.ledger.read > 0


async def test_a_folder_that_is_gone_stops_saving_until_it_is_back(tmp_path: Path) -> None:
    """Requests are served meanwhile, and the lock is taken anew."""
    folder = tmp_path / "slots"
    async with started(folder, options={"first_retry": 0.0}) as one:
        first = await one.ask(LONG)
        shutil.rmtree(folder)
        assert await one.save_idle() == 0
        assert one.keeper.statistics().paused == "folder"
        for _ in range(2):
            await one.keeper.moments.look_after()
        assert one.keeper.statistics().paused == "folder"
        assert (await one.ask(LONG, first.answer, " more")).evaluated < 10
        folder.mkdir()
        await one.keeper.moments.look_after()
        assert one.keeper.statistics().paused == ""
        assert await one.save_idle() == 1
        assert (folder / "bp-lock").exists()


async def test_a_model_that_was_overwritten_gets_no_snapshots(tmp_path: Path) -> None:
    """Rule 2: the engine runs the old one; its cache must not get the new one's name."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF old weights")
    os.utime(model, (1, 1))
    folder = tmp_path / "slots"
    known = {"started": None}
    flags: dict[str, Any] = {"tokens_per_second": SPEED, "model": model}
    async with FakeEngine(slot_folder=folder, **flags) as engine, rig(engine, known=known) as one:
        await one.ask(LONG)
        model.write_bytes(b"GGUF new weights")
        assert await one.save_idle() == 0
        assert one.keeper.statistics().paused == "model"
        assert "restart the engine" in one.keeper.statistics().reason


async def test_a_save_that_hangs_is_given_up(tmp_path: Path) -> None:
    """`kv.save_timeout`: afterwards nothing is known, the next response settles that, and no file is left."""
    async with started(tmp_path, options={"first_retry": 0.0}) as one:
        first = await one.ask(LONG)
        await fake(one).faults(save_seconds=0.3)
        moments, patient = one.keeper.moments, one.keeper.moments.config
        moments.config = msgspec.structs.replace(patient, save_timeout=0.05)
        assert await one.save_idle() == 0
        assert "did not end within" in one.keeper.statistics().reason
        moments.config = patient
        await fake(one).faults(save_seconds=0)
        await one.ask(LONG, first.answer, " more")
        assert await one.save_idle() == 1
        assert len(leftovers(tmp_path)) <= 1  # the engine may have finished the one that was given up


async def test_an_engine_that_dies_in_a_save_costs_that_save(tmp_path: Path) -> None:
    """Its half file is removed; what was saved before is whole."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        await one.save_idle()
        await one.ask(LONG, first.answer, text(300, " more"))
        await fake(one).faults(die="save")
        assert await one.save_idle() == 0
        await fake(one).restart()
        one.keeper.gone("killed")
        await one.attach()
        assert leftovers(tmp_path) == []
        assert (await one.ask(LONG, first.answer, " and?")).prepared.status == "restored"


async def test_leaving_in_a_save_leaves_a_whole_snapshot(tmp_path: Path) -> None:
    """A user who gives up while what he displaces is saved: the save ends, and counts."""
    async with started(tmp_path) as one:
        await one.ask(text(600, "mine"))
        await fake(one).faults(save_seconds=0.2)
        await fake(one).forget()
        grant = await one.gate.acquire()
        task = aio.spawn(one.keeper.prepare(one.want("somebody else"), grant), name="client")

        async def saving() -> bool | None:
            return any("save" in request.target for request in await fake(one).requests()) or None

        assert await aio.poll(saving, interval=0.01, deadline=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        grant.release()
        await one.settle()
        assert len(one.keeper.list()) == 1
        assert await fake(one).violations() == []


async def test_the_last_save_is_on_disk_before_the_end(tmp_path: Path) -> None:
    """Shutdown: what pays is saved, committed, and the folder given back."""
    async with started(tmp_path) as one:
        await one.ask(LONG)
        grant = await one.gate.acquire(work="background", exclusive=True)
        assert await one.keeper.moments.save_idle(grant) == 1
        grant.release()
        await one.keeper.close()
        assert leftovers(tmp_path) == []
    async with started(tmp_path) as one:
        assert len(one.keeper.list()) == 1
