"""Meeting an engine: what is found out when we attach, what is said about it, and what an upgrade changes."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bioproxy.errors import EngineUnavailable
from bioproxy.kv.folder import examine_all
from bioproxy.kv.policy import Speeds
from fakes.fake_engine import FakeEngine
from support.faults import hung
from support.kv_rig import Rig, rig, text
from support.leaks import full_disk

SPEED = 5000
LONG = text(500, "a")
HIDDEN = {"command": ("llama-server",)}  # the fake's own flags (its build, its weights) would be in the fingerprint


def fake(one: Rig) -> FakeEngine:
    """The engine, which is a fake one here."""
    assert isinstance(one.engine, FakeEngine)
    return one.engine


@asynccontextmanager
async def started(folder: Path | None, *, engine: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Rig]:
    """A fake engine with a keeper; `engine` are its flags."""
    flags = {"tokens_per_second": SPEED, **(engine or {})}
    async with FakeEngine(slot_folder=folder, **flags) as process, rig(process, **more) as one:
        yield one
        assert await process.violations() == []


async def restart(one: Rig, **flags: Any) -> None:
    """Kill the engine, start it again with other flags, attach again."""
    await fake(one).restart(**flags)
    one.keeper.gone("killed")
    await one.attach()


def notes(one: Rig) -> str:
    """What `/status` says."""
    return "\n".join(one.keeper.statistics().notes)


async def test_a_slot_folder_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its engine is served without snapshots; what holds them up is said, and when it answers they are there again."""
    folder = tmp_path / "slots"
    async with started(folder, options={"first_retry": 0.0}) as one:
        first = await one.ask(LONG)
        assert await one.save_idle() == 1
        with hung(folder, monkeypatch) as disk:
            await fake(one).restart()
            one.keeper.gone("killed")
            await one.attach()
            assert f"{folder} does not answer" in notes(one)
            for _ in range(3):
                assert (await one.ask(LONG, first.answer, "and?")).prepared.status in {"", "resident"}
                assert await one.save_idle() == 0
                await one.keeper.moments.look_after()
            assert len(disk.threads) == 1
        await one.keeper.moments.look_after()
        assert notes(one) == ""
        assert len(one.keeper.list()) == 1


async def test_a_disk_that_stops_answering_under_a_save_holds_up_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is given back, and saving pauses."""
    folder = tmp_path / "slots"
    async with started(folder) as one:
        await one.ask(LONG)
        with hung(folder, monkeypatch):
            assert await one.save_idle() == 0
            assert one.keeper.statistics().paused == "folder"
            assert (await one.ask(LONG)).cached


async def test_an_engine_without_slot_files_is_served_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 24: no --slot-save-path: the flag to add is named, logged once, and nothing fails."""
    with caplog.at_level(logging.WARNING):
        async with started(None) as one:
            assert "--slot-save-path" in notes(one)
            first = await one.ask(LONG)
            assert (await one.ask(LONG, first.answer, " more")).prepared.status == "resident"
            assert await one.save_idle() == 0
            assert not await one.warm(text(300, "template"))
            await one.keeper.attached(await one.facts())
    assert len([record for record in caplog.records if "--slot-save-path" in record.getMessage()]) == 1


async def test_an_unknown_folder_names_the_key_to_set(tmp_path: Path) -> None:
    """Rule 24: slot actions are on, and nobody told us where they go."""
    async with started(tmp_path, known={**HIDDEN, "slot_folder": ""}) as one:
        assert "kv.directory" in notes(one)
        assert not one.keeper.decisions.restoring


async def test_a_folder_that_the_engine_does_not_write_to_is_found_out(tmp_path: Path) -> None:
    """Rule 24: the engine saves an empty slot, and the file does not appear where we look."""
    (tmp_path / "elsewhere").mkdir()
    async with started(tmp_path / "slots", directory=str(tmp_path / "elsewhere")) as one:
        assert "do not appear in" in notes(one)
        assert not one.keeper.actions.saving
        assert list((tmp_path / "slots").glob("bp-*")) != []  # what the engine wrote lies where we cannot see it


async def test_a_folder_that_the_engine_cannot_write_is_found_out(tmp_path: Path) -> None:
    """Rule 24: the engine's own refusal, in words."""
    async with started(tmp_path, engine={"faults": {"save": "full"}}, known=HIDDEN) as one:
        assert "cannot write into its slot folder" in notes(one)
        await one.ask(LONG)
        assert await one.save_idle() == 0


async def test_a_disk_that_is_full_when_the_engine_is_met_may_have_room_later(tmp_path: Path) -> None:
    """Saving pauses as it does later: what is on disk is restored meanwhile, and it goes on by itself."""
    full = {"faults": {"save": "full"}}
    async with started(tmp_path, known=HIDDEN) as one:
        first = await one.ask(LONG)
        assert await one.save_idle() == 1
    async with started(tmp_path, engine=full, known=HIDDEN, options={"first_retry": 0.0}) as one:
        assert one.keeper.statistics().paused == "engine"
        assert "cannot write into its slot folder" in notes(one)
        assert (await one.ask(LONG, first.answer, " and?")).prepared.status == "restored"
        await one.keeper.moments.look_after()
        assert "cannot write into its slot folder" in notes(one)
        await fake(one).faults(save="")
        await one.keeper.moments.look_after()
        assert (one.keeper.statistics().paused, notes(one)) == ("", "")
        await one.ask(text(600, "another"))
        assert await one.save_idle() == 1


async def test_our_own_disk_may_be_full_when_the_engine_is_met(tmp_path: Path) -> None:
    """Here no process of ours gets a byte onto the disk; restores go on, and saving begins when there is room."""
    async with started(tmp_path) as one:
        first = await one.ask(LONG)
        assert await one.save_idle() == 1
    async with started(tmp_path, options={"first_retry": 0.0}) as one:
        await fake(one).restart()
        one.keeper.gone("killed")
        with full_disk():
            await one.attach()
            assert one.keeper.statistics().paused == "folder"
            assert (await one.ask(LONG, first.answer, " and?")).prepared.status == "restored"
            await one.keeper.moments.look_after()
            assert one.keeper.statistics().paused == "folder"
        await one.keeper.moments.look_after()
        assert (one.keeper.statistics().paused, notes(one)) == ("", "")
        await one.ask(text(600, "another"))
        assert await one.save_idle() == 1


@pytest.mark.parametrize("used", [False, True])
async def test_slot_files_that_did_not_appear_may_appear_later(tmp_path: Path, *, used: bool) -> None:
    """A folder that was mounted late, or a network that was slow: the engine is asked to save again, alone."""
    link, wrong = tmp_path / "link", tmp_path / "wrong"
    wrong.mkdir()
    link.symlink_to(wrong)
    async with started(tmp_path / "slots", directory=str(link)) as one:
        assert "do not appear in" in notes(one)
        first = await one.ask(LONG) if used else None
        await one.keeper.moments.look_after()
        assert "do not appear in" in notes(one)
        assert (one.keeper.decisions.restoring, one.keeper.actions.saving) == (False, False)
        link.unlink()
        link.symlink_to(tmp_path / "slots")
        await one.keeper.moments.look_after()
        assert notes(one) == ""
        if first is not None:
            assert (await one.ask(LONG, first.answer, " more")).evaluated < 10  # it was not lost by the looks
        await one.ask(text(600, "another"))
        assert await one.save_idle() == 1
        assert len(list(wrong.glob("*.kv"))) == 0


async def test_a_model_file_that_could_not_be_read_may_be_readable_later(tmp_path: Path) -> None:
    """A disk that was not mounted yet: as soon as the file can be identified, there are snapshots."""
    models, away = tmp_path / "models", tmp_path / "away"
    models.mkdir()
    (models / "a.gguf").write_bytes(b"weights")
    async with started(tmp_path / "slots", engine={"model": models / "a.gguf"}, known={"started": None}) as one:
        assert notes(one) == ""
        models.rename(away)
        await one.attach()
        assert "cannot be read here" in notes(one)
        await one.keeper.moments.look_after()
        assert not one.keeper.actions.saving
        away.rename(models)
        await one.keeper.moments.look_after()
        assert notes(one) == ""
        await one.ask(LONG)
        assert await one.save_idle() == 1


async def test_what_nobody_expected_when_the_engine_was_met_may_pass(tmp_path: Path) -> None:
    """It is served without snapshots, and looked at again."""
    faults = ["a bug"]

    def identify(path: str) -> str:
        if faults:
            raise RuntimeError(faults[0])
        return path

    async with started(tmp_path, options={"identify": identify}) as one:
        assert "something unexpected" in notes(one)
        await one.keeper.moments.look_after()
        assert "something unexpected" in notes(one)
        faults.clear()
        await one.keeper.moments.look_after()
        assert notes(one) == ""
        await one.ask(LONG)
        assert await one.save_idle() == 1


async def test_a_folder_that_we_cannot_use_is_found_out_and_tried_again(tmp_path: Path) -> None:
    """Rule 24: a missing folder; as soon as it is there, snapshots begin by themselves."""
    missing = tmp_path / "later"
    async with started(tmp_path / "slots", directory=str(missing)) as one:
        assert "cannot write to the snapshot folder" in notes(one)
        missing.symlink_to(tmp_path / "slots")
        await one.keeper.moments.look_after()
        assert "cannot write" not in notes(one)
        await one.ask(LONG)
        assert await one.save_idle() == 1


async def test_the_second_of_us_runs_without_snapshots_and_takes_over(tmp_path: Path) -> None:
    """Two processes never share a folder: the second says who holds it, and goes on when that one is gone."""
    program = (
        "import pathlib, sys, time\n"
        "from bioproxy.kv.folder import Folder\n"
        "Folder(pathlib.Path(sys.argv[1])).occupy()\n"
        "print('mine', flush=True)\n"
        "time.sleep(60)\n"
    )
    tmp_path.joinpath("slots").mkdir()
    folder = str(tmp_path / "slots")
    holder = await asyncio.create_subprocess_exec(sys.executable, "-c", program, folder, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"mine\n"
    async with started(tmp_path / "slots") as one:
        assert f"process {holder.pid}" in notes(one)
        first = await one.ask(LONG)
        assert await one.save_idle() == 0
        holder.send_signal(signal.SIGKILL)
        await holder.communicate()
        await one.keeper.moments.look_after()
        assert one.keeper.statistics().notes[1:] == ()
        await one.ask(LONG, first.answer, text(100, " more"))
        assert await one.save_idle() == 1


async def test_another_model_gets_its_own_snapshots(tmp_path: Path) -> None:
    """Rule 2: the engine comes back with other weights, then with the old ones: each has its own, none is mixed up."""
    models = [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for number, model in enumerate(models):
        model.write_bytes(b"GGUF" + bytes([number]) * 5000)
    usual = {"started": None}
    folder = tmp_path / "slots"
    async with started(folder, engine={"model": models[0], "weights": "one"}, known=usual) as one:
        await one.ask(LONG)
        await one.save_idle()
        await restart(one, model=models[1], weights="two")
        other = await one.ask(LONG, " more")
        assert (other.prepared.status, other.cached) == ("", 0)
        assert "another model" in one.keeper.snapshots()[-1].unused
        await one.save_idle()
        await restart(one, model=models[0], weights="one")
        assert (await one.ask(LONG, " more")).prepared.status == "restored"
        assert len(one.keeper.list()) == 2


async def test_after_an_upgrade_snapshots_are_tried_and_adopted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 2: the new build reads what the old one wrote: one line says so, and nothing is evaluated again."""
    known = {**HIDDEN, "slot_folder": str(tmp_path)}
    async with started(tmp_path, engine={"build": "b1"}, known=known) as one:
        assert await one.warm(LONG)
        with caplog.at_level(logging.INFO):
            await restart(one, build="b2")
        lines = [record.getMessage() for record in caplog.records if "adopted" in record.getMessage()]
        assert len(lines) == 1
        assert "build is b2" in lines[0]
        assert "MiB" in lines[0]
        assert "adopted" in one.keeper.statistics().build_check
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"
        assert one.keeper.list()[0].build == "b2"


async def test_after_an_upgrade_with_several_slots_in_use_snapshots_wait(tmp_path: Path) -> None:
    """They are not used before they were tried, and are told; a later start tries them, and nothing is lost."""
    known = {**HIDDEN, "slot_folder": str(tmp_path)}
    async with started(tmp_path, engine={"build": "b1", "parallel": 2}, known=known) as one:
        one.gate.resize(2)
        assert await one.warm(LONG)
        await fake(one).restart(build="b2")
        one.keeper.gone("upgraded")
        await fake(one).post("/completion", {"prompt": text(50, "past us"), "n_predict": 1})
        await fake(one).forget()
        await one.attach()
        assert "1 snapshots" in one.keeper.statistics().build_check
        assert "not used yet" in one.keeper.statistics().build_check
        assert "was not proved to read yet" in one.keeper.snapshots()[0].unused
        await one.keeper.moments.look_after()
        assert one.keeper.has_snapshot(one.want(LONG, template=True)) is None
        await restart(one)
        assert "adopted" in one.keeper.statistics().build_check
        assert (await one.ask(LONG, " question", template=True)).prepared.status == "restored"


@pytest.mark.parametrize("fault", [{"worthless": True}, {}])
async def test_after_an_upgrade_that_misreads_them_snapshots_are_not_used(tmp_path: Path, fault: Any) -> None:
    """Rule 2: nothing is used of them, or the engine says something else than after a cold start."""
    known = {**HIDDEN, "slot_folder": str(tmp_path)}
    weights = {} if fault else {"weights": "others"}
    async with started(tmp_path, engine={"build": "b1"}, known=known) as one:
        assert await one.warm(LONG)
        await fake(one).restart(build="b2", faults='{"worthless": true}' if fault else "{}", **weights)
        one.keeper.gone("upgraded")
        await one.attach()
        assert "not used any more" in one.keeper.statistics().build_check
        assert "build b1" in one.keeper.snapshots()[0].unused
        await fake(one).faults(worthless=False)
        assert one.keeper.has_snapshot(one.want(LONG, template=True)) is None
        assert await one.warm(LONG)
        assert [found.build for found in one.keeper.list()] == ["b2"]


async def test_an_engine_in_use_is_not_tried_before_it_is_free(tmp_path: Path) -> None:
    """Rule 24: somebody uses it past us when we attach: no slot action then; a build is tried later, alone."""
    known = {**HIDDEN, "slot_folder": str(tmp_path)}
    async with started(tmp_path, engine={"build": "b1"}, known=known) as one:
        assert await one.warm(LONG)
        await fake(one).restart(build="b2")
        one.keeper.gone("upgraded")
        await fake(one).post("/completion", {"prompt": text(50, "past us"), "n_predict": 1})
        await fake(one).forget()
        await one.attach()
        targets = [request.target for request in await fake(one).requests()]
        assert not any("save" in target or "restore" in target for target in targets)
        assert one.keeper.has_snapshot(one.want(LONG, template=True)) is None
        await one.keeper.moments.look_after()
        assert one.keeper.has_snapshot(one.want(LONG, template=True)) is not None


async def test_the_reference_of_a_build_is_nobodys_snapshot(tmp_path: Path) -> None:
    """It is in no list, no event and no count, and the slot is empty again after it was written."""
    async with started(tmp_path) as one:
        assert len(list(tmp_path.glob("*.kv"))) == 1
        assert one.keeper.list() == ()
        assert (one.keeper.statistics().snapshots, one.keeper.statistics().bytes) == (0, 0)
        assert one.events == []
        assert one.keeper.statistics().slots[0].state == "empty"
        assert (await fake(one).state())["slots"][0]["tokens"] in (0, [])


async def test_attaching_survives_an_engine_that_goes_away(tmp_path: Path) -> None:
    """It never raises; the next attach does the rest."""
    async with started(tmp_path) as one:
        facts = await one.facts()
        await fake(one).kill()
        await one.keeper.attached(facts)
        one.keeper.gone("killed")
        with pytest.raises(EngineUnavailable):
            await one.llama.props()
        await fake(one).start()
        await one.attach()
        await one.ask(LONG)
        assert await one.save_idle() == 1


async def test_what_was_learnt_outlives_a_restart_of_ours(tmp_path: Path) -> None:
    """Speeds and verdicts stand in the folder; a keeper that starts anew begins with them."""
    async with started(tmp_path) as one:
        for number in range(4):
            await one.ask(text(300, f"n{number}"), store=False)
        learnt = one.keeper.speeds
        assert learnt.prefill != Speeds().prefill
    async with started(tmp_path) as one:
        assert one.keeper.speeds.prefill == pytest.approx(learnt.prefill)


async def test_verify_tells_the_good_from_the_bad(tmp_path: Path) -> None:
    """`bioproxy snapshots verify`: each with what is wrong with it; nothing is changed by looking."""
    async with started(tmp_path) as one:
        for number in range(2):
            await one.ask(text(300, f"n{number}"))
            await one.save_idle()
        bad = one.keeper.list()[0]
        with (tmp_path / bad.name).open("ab") as file:
            file.write(b"more")
        found = {verified.snapshot.id: verified.fault for verified in examine_all(tmp_path)}
        assert "bytes" in found.pop(bad.id)
        assert list(found.values()) == [""]
        assert len(one.keeper.list()) == 2


async def test_a_keeper_says_what_it_can_and_what_its_slots_hold(tmp_path: Path) -> None:
    """For a debugger and a log; nothing of a prompt is in it."""
    async with started(tmp_path) as one:
        assert repr(one.keeper) == "<Keeper restores and saves, [<Resident 0 empty, 0 tokens>]>"
        asked = await one.ask(LONG)
        await one.save_idle()
        tokens = asked.cached + asked.evaluated + 3
        assert repr(one.keeper) == f"<Keeper restores and saves, [<Resident 0 whole, {tokens} tokens, saved>]>"
        one.keeper.gone("killed")
        assert repr(one.keeper) == "<Keeper off, [<Resident 0 part, 0 tokens>]>"
