"""Snapshots in table and folder, kept in step."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from bioproxy.events import SnapshotDropped, SnapshotSaved
from bioproxy.kv import files as slot_files
from bioproxy.kv import shelf as shelf_module
from bioproxy.kv.budget import FOLDER
from bioproxy.kv.chain import chain
from bioproxy.kv.folder import Folder, FolderError
from bioproxy.kv.snapshot import Snapshot, new_id
from bioproxy.prompt import Piece
from support.faults import changed
from support.shelf_bench import BUILD, FINGERPRINT, SIZE, Bench, files


async def test_what_is_committed_is_in_table_and_folder(tmp_path: Path) -> None:
    """And said once; nothing is pending any more."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    kept = await bench.save("a")
    assert kept is not None
    assert files(tmp_path) == {kept.name}
    assert (tenant.shelf.index.size, tenant.shelf.today(), tenant.shelf.pending) == (SIZE, SIZE, set())
    assert [type(event) for event in bench.events] == [SnapshotSaved]
    await tenant.close()


async def test_another_process_begins_where_this_one_ended(tmp_path: Path) -> None:
    """Snapshots, uses and bytes of the day come back; the lock was given back."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    kept = await bench.save("a")
    assert kept is not None
    tenant.shelf.used(kept, gained=2.5)
    await tenant.close()
    again = await Bench().open(tmp_path)
    assert [(one.uses, one.gained) for one in again.shelf.index.snapshots.values()] == [(1, 2.5)]
    assert again.shelf.today() == SIZE
    await again.close()


async def test_a_start_finds_copies_of_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written at the end and after enough changes; a start after a crash reads the rest one by one."""
    monkeypatch.setattr(shelf_module, "FEW", 2)
    bench = Bench()
    tenant = await bench.open(tmp_path)
    for text in "ab":
        await bench.save(text)
    await tenant.shelf.look_after()
    await bench.save("c")
    await tenant.shelf.look_after()  # one change is too few
    assert Folder(tmp_path).load().read == 1
    await tenant.close()
    assert Folder(tmp_path).load().read == 0
    again = await Bench().open(tmp_path)
    assert len(again.shelf.index.snapshots) == 3
    assert again.shelf.copied == again.shelf.index.changes
    await again.close()


async def test_reopening_the_same_folder_forgets_nothing(tmp_path: Path) -> None:
    """An engine that came back: marks and uses that were not written yet still hold."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    bad, good = await bench.save("a"), await bench.save("b")
    assert bad is not None
    assert good is not None
    tenant.shelf.mark(bad, "worthless")
    tenant.shelf.used(good)
    await bench.open(tmp_path)
    assert tenant.shelf.index.snapshots[bad.id].quarantined == "worthless"
    assert tenant.shelf.index.snapshots[good.id].uses == 1
    await tenant.close()


async def test_a_newer_snapshot_takes_the_place_of_its_ancestor(tmp_path: Path) -> None:
    """In the folder too."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    await bench.save("a")
    newer = await bench.save("a", "b")
    assert newer is not None
    assert files(tmp_path) == {newer.name}
    assert [event.reason for event in bench.events if isinstance(event, SnapshotDropped)] == ["replaced"]
    await tenant.close()


async def test_the_budget_holds_after_each_commit(tmp_path: Path) -> None:
    """The least valuable goes; what is being read stays."""
    bench = Bench(disk_budget=2 * SIZE)
    tenant = await bench.open(tmp_path)
    poor = await bench.save("a", seconds=0.1)
    rich = await bench.save("b", seconds=9.0)
    assert poor is not None
    assert rich is not None
    tenant.shelf.reading[poor.id] = 1
    third = await bench.save("c", seconds=1.0)
    assert third is not None
    assert set(tenant.shelf.index.snapshots) == {poor.id, rich.id}
    tenant.shelf.reading.clear()
    await bench.save("d", seconds=5.0)
    assert poor.id not in tenant.shelf.index.snapshots
    assert tenant.shelf.index.size <= 2 * SIZE
    await tenant.close()


async def test_whether_room_can_be_made_is_known_before(tmp_path: Path) -> None:
    """Nothing is written that would be thrown out at once; what it replaces counts as room."""
    bench = Bench(disk_budget=2 * SIZE)
    tenant = await bench.open(tmp_path)
    first = await bench.save("a", seconds=5.0)
    await bench.save("b", seconds=5.0)
    assert first is not None
    poor, rich = (
        Snapshot(
            id=new_id(), fingerprint=FINGERPRINT, build=BUILD, cuts=cuts, tokens=9, prompt=9, size=SIZE,
            seconds=seconds, used=tenant.shelf.wall(),
        )
        for cuts, seconds in ((chain("", [Piece("", b"c")]), 0.1), (chain("", [Piece("", b"c")]), 50.0))
    )  # fmt: skip
    assert (tenant.shelf.crowded(poor), tenant.shelf.crowded(rich)) == (FOLDER, None)
    successor = Snapshot(
        id=new_id(), fingerprint=FINGERPRINT, build=BUILD, cuts=(*first.cuts, *poor.cuts), tokens=9, prompt=9,
        size=SIZE, seconds=0.1,
    )  # fmt: skip
    assert tenant.shelf.crowded(successor) is None
    await tenant.close()


async def test_what_a_save_preserves_is_what_is_new_in_it(tmp_path: Path) -> None:
    """A conversation's next save is worth what was said since; the bar of the day's last bytes rises with them."""
    bench = Bench(write_budget=3 * SIZE)
    shelf = (await bench.open(tmp_path)).shelf
    await bench.save("a", seconds=1.0)
    assert (shelf.ledger.preserved, shelf.least) == (1.0, 0.0)
    await bench.save("a", "b", seconds=2.0)
    assert shelf.ledger.preserved == 2.0
    assert shelf.least > 0
    await bench.tenant.close()
    again = Bench(write_budget=3 * SIZE)
    assert (await again.open(tmp_path)).shelf.least == shelf.least
    now = shelf.wall()
    again.tenant.shelf.wall = lambda: now + 86400
    assert (again.tenant.shelf.today(), again.tenant.shelf.least) == (0, 0.0)
    await again.tenant.close()


async def test_adopted_snapshots_belong_to_the_present_build(tmp_path: Path) -> None:
    """After an upgrade that was tried; the sidecars say so from then on."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    old = await bench.save("a", build="b0")
    assert old is not None
    tenant.adopt([old])
    await tenant.close()
    again = await Bench().open(tmp_path)
    assert [one.build for one in again.shelf.index.snapshots.values()] == [BUILD]
    await again.close()


async def test_all_of_a_file_is_read_before_its_first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each run, and again after anything about it looks different; not before every use."""
    reads: list[str] = []
    plain = slot_files.checksum

    def counted(path: Path) -> int:
        reads.append(path.name)
        return plain(path)

    bench = Bench()
    tenant = await bench.open(tmp_path)
    kept = await bench.save("a")
    assert kept is not None
    monkeypatch.setattr(slot_files, "checksum", counted)
    await tenant.shelf.prove(kept)
    await tenant.shelf.prove(kept)
    assert reads == [kept.name]
    path, before = tmp_path / kept.name, changed(tmp_path / kept.name)
    while changed(path) == before:  # the system's clock for files is coarse
        os.utime(path, ns=(0, kept.mtime_ns))
    await tenant.shelf.prove(kept)
    assert reads == [kept.name] * 2
    await tenant.close()
    again = await Bench().open(tmp_path)
    await again.shelf.prove(kept)
    assert reads == [kept.name] * 3
    await again.close()


async def test_a_snapshot_of_an_older_version_is_adopted_at_its_first_use(tmp_path: Path) -> None:
    """Its checksum is in the sidecar from then on."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    kept = await bench.save("a")
    assert kept is not None
    old = msgspec.structs.replace(kept, checksum=None)
    tenant.shelf.index.add(old)
    await tenant.shelf.prove(old)
    await tenant.close()
    again = await Bench().open(tmp_path)
    assert again.shelf.index.snapshots[kept.id].checksum == kept.checksum
    await again.close()


async def test_a_commit_without_a_folder_is_no_error(tmp_path: Path) -> None:
    """The folder was given back while a save was under way."""
    bench = Bench()
    tenant = await bench.open(tmp_path)
    await tenant.close()
    tenant.shelf.pending.add("bp-tmp-x.kv")
    cuts = chain("", [Piece("", b"a")])
    one = Snapshot(id=new_id(), fingerprint=FINGERPRINT, build=BUILD, cuts=cuts, tokens=1, prompt=1, size=1)
    assert await tenant.shelf.commit("bp-tmp-x.kv", one, seconds=0.0) is None
    assert tenant.shelf.pending == set()


async def test_a_folder_that_cannot_be_had_leaves_an_empty_table(tmp_path: Path) -> None:
    """No snapshot is offered that could not be read; when the folder is back, all of them are."""
    bench = Bench()
    folder, away = tmp_path / "slots", tmp_path / "away"
    folder.mkdir()
    tenant = await bench.open(folder)
    await bench.save("a")
    folder.rename(away)
    with pytest.raises(FolderError):
        await tenant.shelf.reopen()
    assert tenant.shelf.index.snapshots == {}
    with pytest.raises(FolderError):
        await tenant.shelf.measure()
    away.rename(folder)
    await tenant.shelf.reopen()
    assert len(tenant.shelf.index.snapshots) == 1
    await tenant.close()


async def test_housekeeping_without_a_folder_does_nothing() -> None:
    """A keeper without an engine ticks too."""
    tenant = Bench().tenant
    await tenant.shelf.look_after()
    await tenant.shelf.reopen()
    await tenant.close()
