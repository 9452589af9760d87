"""What a person does with one snapshot, on a real folder."""

from __future__ import annotations

import asyncio
import math
import os
from pathlib import Path

import msgspec
import pytest

from bioproxy import aio
from bioproxy.errors import NotFound, RequestError
from bioproxy.events import SnapshotDropped
from bioproxy.kv import by_hand
from bioproxy.kv import files as slot_files
from bioproxy.kv.folder import FolderError
from bioproxy.kv.snapshot import DAMAGED, Sidecar, Snapshot, decode
from support.leaks import until
from support.shelf_bench import SIZE, Bench, files


async def one(bench: Bench, folder: Path, *texts: str, **more: object) -> Snapshot:
    """A snapshot in an open folder."""
    if bench.tenant.shelf.folder is None:
        await bench.open(folder)
    kept = await bench.save(*(texts or ("a",)), **more)
    assert kept is not None
    return kept


def reasons(bench: Bench) -> list[str]:
    return [event.reason for event in bench.events if isinstance(event, SnapshotDropped)]


# pins


async def test_the_budget_does_not_take_what_is_pinned(tmp_path: Path) -> None:
    """What is worth more goes instead."""
    bench = Bench(disk_budget=2 * SIZE)
    poor, rich = await one(bench, tmp_path, seconds=0.1), await one(bench, tmp_path, "b", seconds=9.0)
    await by_hand.pin(bench.tenant.shelf, poor, pinned=True)
    third = await one(bench, tmp_path, "c", seconds=50.0)
    assert set(bench.tenant.shelf.index.snapshots) == {poor.id, third.id}
    assert rich.id not in bench.tenant.shelf.index.snapshots
    await bench.tenant.close()


async def test_what_is_pinned_leaves_no_room_for_more(tmp_path: Path) -> None:
    """A save that would be thrown out at once is refused, with a sentence; unpinned, it fits."""
    bench = Bench(disk_budget=SIZE)
    pinned = await one(bench, tmp_path, seconds=0.1)
    shelf = bench.tenant.shelf
    await by_hand.pin(shelf, pinned, pinned=True)
    await shelf.measure()
    other = msgspec.structs.replace(pinned, id="0" * 16, cuts=pinned.cuts[:0], seconds=99.0, pinned=False)
    other = msgspec.structs.replace(other, cuts=(msgspec.structs.replace(pinned.cuts[0], digest=b"other"),))
    refused = shelf.refusal(other)
    assert refused is not None
    assert (refused.kind, refused.pauses) == ("budget", False)
    await by_hand.pin(shelf, pinned, pinned=False)
    assert shelf.refusal(other) is None
    await bench.tenant.close()


async def test_a_pin_survives_a_restart_and_a_lost_index(tmp_path: Path) -> None:
    """It stands in the snapshot's own description."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    await by_hand.pin(bench.tenant.shelf, kept, pinned=True)
    await bench.tenant.close()
    (tmp_path / "bp-index.json").unlink(missing_ok=True)
    again = await Bench().open(tmp_path)
    assert [found.pinned for found in again.shelf.index.snapshots.values()] == [True]
    await again.close()


async def test_a_description_of_an_older_version_has_no_pin(tmp_path: Path) -> None:
    """And is read as it always was."""
    bench = Bench()
    described = msgspec.json.encode(await one(bench, tmp_path))
    older = described.replace(b',"pinned":false', b"")
    assert older != described
    assert decode(msgspec.json.encode(Sidecar(1, msgspec.Raw(older)))).pinned is False
    await bench.tenant.close()


async def test_a_newer_snapshot_of_the_conversation_inherits_the_pin(tmp_path: Path) -> None:
    """On the disk too, before the older file goes."""
    bench = Bench()
    older = await one(bench, tmp_path)
    await by_hand.pin(bench.tenant.shelf, older, pinned=True)
    newer = await one(bench, tmp_path, "a", "b")
    assert bench.tenant.shelf.index.snapshots[newer.id].pinned
    assert decode((tmp_path / newer.sidecar).read_bytes()).pinned
    assert files(tmp_path) == {newer.name}
    await bench.tenant.close()


async def test_what_is_never_used_again_cannot_be_pinned(tmp_path: Path) -> None:
    """And a quarantine ends a pin, or a bad file would fill the budget for ever."""
    bench = Bench()
    shelf, kept = bench.tenant.shelf, await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    await by_hand.pin(shelf, kept, pinned=True)
    shelf.mark(kept, "worthless")
    assert not shelf.index.snapshots[kept.id].pinned
    with pytest.raises(RequestError, match="never used again: worthless") as told:
        await by_hand.pin(shelf, kept, pinned=True)
    assert told.value.status == 409
    await bench.tenant.close()


async def test_a_pin_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's words reach the person."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    assert shelf.folder is not None

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shelf.folder, "describe", full)
    with pytest.raises(FolderError, match="No space left on device"):
        await by_hand.pin(shelf, kept, pinned=True)
    assert not shelf.index.snapshots[kept.id].pinned
    await bench.tenant.close()


async def test_what_went_meanwhile_cannot_be_pinned(tmp_path: Path) -> None:
    """The eviction was faster."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    await bench.tenant.shelf.drop([kept], "budget")
    with pytest.raises(NotFound):
        await by_hand.pin(bench.tenant.shelf, kept, pinned=True)
    await bench.tenant.close()


# delete


async def test_a_deleted_snapshot_is_gone_from_table_and_disk(tmp_path: Path) -> None:
    """And it is told why, pinned or not."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    await by_hand.delete(shelf, await by_hand.pin(shelf, kept, pinned=True))
    assert (files(tmp_path), shelf.index.snapshots, reasons(bench)) == (set(), {}, ["deleted"])
    assert not (tmp_path / kept.sidecar).exists()
    await bench.tenant.close()


async def test_what_is_being_read_is_not_deleted(tmp_path: Path) -> None:
    """A restore, or a check, has it: 409, and a moment later it goes."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    with shelf.held(kept), pytest.raises(RequestError, match="is being read") as told:
        await by_hand.delete(shelf, kept)
    assert told.value.status == 409
    assert files(tmp_path) == {kept.name}
    await by_hand.delete(shelf, kept)
    assert files(tmp_path) == set()
    await bench.tenant.close()


async def test_a_file_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not used any more, and the person knows where it lies."""
    bench = Bench()
    kept = await one(bench, tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(slot_files, "remove", refuse)
    with pytest.raises(FolderError, match=f"{kept.name} is not used any more, but cannot be removed: Operation not"):
        await by_hand.delete(bench.tenant.shelf, kept)
    assert not bench.tenant.shelf.index.snapshots
    await bench.tenant.close()


# names


async def test_only_what_the_table_has_has_a_name(tmp_path: Path) -> None:
    """Its name or id; neither a path nor another file of the folder, nor a build's reference."""
    bench = Bench()
    kept = await one(bench, tmp_path, prefix="@code", template=True)
    reference = await one(bench, tmp_path, "reference", template=True)
    shelf = bench.tenant.shelf
    assert by_hand.named(shelf, kept.id) == by_hand.named(shelf, kept.name) == kept
    for name in (reference.id, "bp-index.json", f"../{kept.name}", "bp-lock", kept.sidecar, ""):
        assert by_hand.named(shelf, name) is None
    await bench.tenant.close()


async def test_what_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """It has no place in the table yet."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    bench.tenant.shelf.committing["0" * 16] = msgspec.structs.replace(kept, id="0" * 16)
    with pytest.raises(RequestError, match="is being written"):
        by_hand.named(bench.tenant.shelf, "0" * 16)
    await bench.tenant.close()


# verify


async def test_a_whole_file_is_whole_and_all_of_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time, although it was read before in this run."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    read, proved = 0, slot_files.proved

    def counted(folder: Path, snapshot: Snapshot) -> tuple[Snapshot, slot_files.Stamp]:
        nonlocal read
        read += 1
        return proved(folder, snapshot)

    monkeypatch.setattr(slot_files, "proved", counted)
    assert [await by_hand.verify(bench.tenant.shelf, kept) for _ in range(2)] == ["", ""]
    assert read == 2
    await bench.tenant.close()


async def test_a_flipped_byte_is_found_and_never_used(tmp_path: Path) -> None:
    """Size and times are right; the list says what happened."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    path = tmp_path / kept.name
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    fault = await by_hand.verify(bench.tenant.shelf, kept)
    assert DAMAGED in fault
    assert bench.tenant.shelf.index.snapshots[kept.id].quarantined == fault
    await bench.tenant.close()


async def test_a_file_that_is_gone_leaves_the_list(tmp_path: Path) -> None:
    """Somebody removed it."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    (tmp_path / kept.name).unlink()
    assert "is not in" in await by_hand.verify(bench.tenant.shelf, kept)
    assert (bench.tenant.shelf.index.snapshots, reasons(bench)) == ({}, ["missing"])
    await bench.tenant.close()


async def test_who_waits_for_its_turn_is_not_told_that_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for the reading of one file."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf

    async def whole(_: Snapshot) -> str:
        return ""

    monkeypatch.setattr(shelf, "vet", whole)
    monkeypatch.setattr(by_hand, "VERIFIED", 0.0)
    monkeypatch.setattr(by_hand, "SLOWEST", math.inf)
    async with shelf.verifying:
        check = aio.spawn(by_hand.verify(shelf, kept), name="check")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert await check == ""
    await bench.tenant.close()


async def test_one_file_is_read_at_a_time_and_held_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second check waits; what is read can be neither evicted nor deleted."""
    bench = Bench()
    kept, other = await one(bench, tmp_path), await one(bench, tmp_path, "b")
    shelf, go = bench.tenant.shelf, asyncio.Event()

    async def slow(snapshot: Snapshot) -> str:
        await go.wait()
        return snapshot.id

    monkeypatch.setattr(shelf, "vet", slow)
    async with asyncio.TaskGroup() as tasks:
        checks = [tasks.create_task(by_hand.verify(shelf, snapshot)) for snapshot in (kept, other)]
        await until(lambda: bool(shelf.reading))
        assert dict(shelf.reading) == {kept.id: 1}
        with pytest.raises(RequestError):
            await by_hand.delete(shelf, kept)
        go.set()
    assert [check.result() for check in checks] == [kept.id, other.id]
    assert not shelf.reading
    await bench.tenant.close()


async def test_a_disk_that_is_too_slow_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person gets a sentence, and the next check its turn."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    monkeypatch.setattr(by_hand, "VERIFIED", 0.0)
    monkeypatch.setattr(shelf, "vet", lambda _: asyncio.Event().wait())
    with pytest.raises(FolderError, match="is the disk busy"):
        await by_hand.verify(shelf, kept)
    assert not shelf.reading
    assert not shelf.verifying.locked()
    await bench.tenant.close()


async def test_without_a_folder_nothing_is_done() -> None:
    """It was given back, or never had."""
    bench = Bench()
    snapshot = Snapshot(id="0" * 16, fingerprint="f" * 16, build="", cuts=(), tokens=1, prompt=1, size=1)
    with pytest.raises(FolderError):
        await by_hand.pin(bench.tenant.shelf, snapshot, pinned=True)
    with pytest.raises(FolderError):
        await by_hand.delete(bench.tenant.shelf, snapshot)
