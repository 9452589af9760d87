"""Snapshots that a key has kept: whole or absent, counted, and back after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from bioproxy import aio
from bioproxy.errors import NotFound, RequestError
from bioproxy.kv import by_hand, keeping
from bioproxy.kv.folder import Folder, FolderError
from bioproxy.kv.policy import Speeds
from bioproxy.kv.snapshot import Pin, Sidecar, Snapshot, decode
from support.shelf_bench import SIZE, Bench, files


async def one(bench: Bench, folder: Path, *texts: str, **more: object) -> Snapshot:
    """A snapshot in an open folder, whose clock stands still."""
    if bench.tenant.shelf.folder is None:
        await bench.open(folder)
        bench.tenant.shelf.wall = lambda: 1000.0
    kept = await bench.save(*(texts or ("a",)), **more)
    assert kept is not None
    return kept


async def test_the_budget_takes_it_when_its_time_is_over(tmp_path: Path) -> None:
    """Until then what is worth more goes instead."""
    bench = Bench(disk_budget=2 * SIZE, kept_budget=SIZE)
    poor = await one(bench, tmp_path, seconds=0.001)
    shelf = bench.tenant.shelf
    await keeping.keep(shelf, poor, group="g1", until=1060.0)
    for text in "bc":
        await bench.save(text, seconds=9.0)
    assert poor.id in shelf.index.snapshots
    shelf.wall = lambda: 1060.0
    await bench.save("d", seconds=9.0)
    assert poor.id not in shelf.index.snapshots
    await bench.tenant.close()


async def test_what_is_kept_is_kept_after_a_restart_without_an_index(tmp_path: Path) -> None:
    """By each group, to its time: it stands in the snapshot's own description."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    await keeping.keep(bench.tenant.shelf, kept, group="g1", until=2000.0)
    await keeping.keep(bench.tenant.shelf, kept, group="g2", name="repo")
    await bench.tenant.close()
    (tmp_path / "bp-index.json").unlink(missing_ok=True)
    again = await Bench().open(tmp_path)
    again.shelf.wall = lambda: 1000.0
    assert [found.pins for found in again.shelf.index.snapshots.values()] == [
        (Pin("g1", 2000.0), Pin("g2", 0.0, "repo"))
    ]
    assert keeping.room_now(again.shelf, "g1").held == SIZE
    await again.close()


async def test_a_description_of_an_older_version_is_kept_by_nobody(tmp_path: Path) -> None:
    """And is read as it always was."""
    bench = Bench()
    described = msgspec.json.encode(await one(bench, tmp_path))
    older = described.replace(b',"pins":[],"model":""', b"")
    assert older != described
    assert decode(msgspec.json.encode(Sidecar(1, msgspec.Raw(older)))).pins == ()
    await bench.tenant.close()


async def test_a_save_may_be_kept_from_the_moment_that_it_exists(tmp_path: Path) -> None:
    """Its first description says so: a crash leaves it with its pin, or leaves nothing."""
    bench = Bench(disk_budget=2 * SIZE, kept_budget=SIZE)
    kept = await one(bench, tmp_path, seconds=0.001, pins=(Pin("g1", until=2000.0),))
    assert decode((tmp_path / kept.sidecar).read_bytes()).pins == kept.pins
    for text in "bcd":
        await bench.save(text, seconds=9.0)
    assert kept.id in bench.tenant.shelf.index.snapshots
    await bench.tenant.close()


async def test_a_longer_conversation_does_not_replace_it(tmp_path: Path) -> None:
    """Others go on from exactly what is kept."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    await keeping.keep(bench.tenant.shelf, kept, group="g1", until=2000.0)
    newer = await one(bench, tmp_path, "a", "b")
    assert files(tmp_path) == {kept.name, newer.name}
    await keeping.release(bench.tenant.shelf, kept, group="g1")
    newest = await one(bench, tmp_path, "a", "b", "c")
    assert files(tmp_path) == {newest.name}
    await bench.tenant.close()


async def test_of_two_times_the_longer_one_counts(tmp_path: Path) -> None:
    """For good is longest; what has passed is forgotten."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    await keeping.keep(shelf, kept, group="g1", until=3000.0)
    assert (await keeping.keep(shelf, kept, group="g1", until=2000.0)).pins == (Pin("g1", 3000.0),)
    assert (await keeping.keep(shelf, kept, group="g2", until=1500.0)).kept_until(1000.0) == 3000.0
    shelf.wall = lambda: 2500.0
    assert (await keeping.keep(shelf, kept, group="g1")).pins == (Pin("g1"),)
    await bench.tenant.close()


async def test_more_than_a_key_may_keep_is_refused_with_the_numbers(tmp_path: Path) -> None:
    """What it keeps already costs nothing more, however often it is asked for."""
    bench = Bench(disk_budget=10 * SIZE, kept_budget=SIZE + 1)
    first, second = await one(bench, tmp_path), await one(bench, tmp_path, "b")
    shelf = bench.tenant.shelf
    for _ in range(2):
        await keeping.keep(shelf, first, group="g1", until=2000.0)
    with pytest.raises(RequestError, match=r"cannot be kept: it keeps .* of .* \(kv.kept_budget\); .* more are free"):
        await keeping.keep(shelf, second, group="g1", until=2000.0)
    assert not shelf.index.snapshots[second.id].pins
    await keeping.release(shelf, first, group="g1")
    await keeping.keep(shelf, second, group="g1", until=2000.0)
    await bench.tenant.close()


async def test_what_would_fit_is_known_before_in_tokens(tmp_path: Path) -> None:
    """As soon as a token's size was measured; a time longer than anything is kept is refused, too."""
    bench = Bench(disk_budget=100_000, kept_budget=10_000, max_age=3600.0)
    tenant = await bench.open(tmp_path)
    await keeping.demand(tenant, "g1", tokens=10**9, seconds=60.0)
    tenant.knowledge.speeds = Speeds(token_bytes=10.0)
    await keeping.demand(tenant, "g1", tokens=1000, seconds=3600.0)
    with pytest.raises(RequestError, match=r"1,001 tokens, about .*, cannot be kept: .* about 1,000 tokens$") as told:
        await keeping.demand(tenant, "g1", tokens=1001, seconds=60.0)
    assert told.value.status == 400
    with pytest.raises(RequestError, match=r"nothing is kept for 3601 s: kv.max_age"):
        await keeping.demand(tenant, "g1", tokens=1, seconds=3601.0)
    await tenant.close()


async def test_the_default_budget_is_known_before_anything_was_saved(tmp_path: Path) -> None:
    """It depends on what is free, so the disk is looked at."""
    bench = Bench(disk_budget=0)
    tenant = await bench.open(tmp_path)
    assert (await keeping.room(tenant.shelf, "")).left > 0
    await tenant.close()


async def test_what_is_being_written_counts(tmp_path: Path) -> None:
    """Two saves at once do not get the same bytes."""
    bench = Bench(kept_budget=SIZE)
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    shelf.committing["0" * 16] = msgspec.structs.replace(kept, id="0" * 16, pins=(Pin("g1"),))
    assert keeping.room_now(shelf, "g1").left == 0
    await bench.tenant.close()


async def test_what_went_or_is_bad_cannot_be_kept(tmp_path: Path) -> None:
    """404, and 409 with the reason."""
    bench = Bench()
    kept, bad = await one(bench, tmp_path), await one(bench, tmp_path, "b")
    shelf = bench.tenant.shelf
    shelf.mark(bad, "worthless")
    with pytest.raises(RequestError, match="never used again: worthless"):
        await keeping.keep(shelf, bad, group="g1")
    await shelf.drop([kept], "budget")
    with pytest.raises(NotFound):
        await keeping.keep(shelf, kept, group="g1")
    await bench.tenant.close()


async def test_a_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked is told, and nothing is counted."""
    bench = Bench()
    kept = await one(bench, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Folder, "describe", full)
    with pytest.raises(FolderError, match="No space left"):
        await keeping.keep(bench.tenant.shelf, kept, group="g1")
    assert keeping.room_now(bench.tenant.shelf, "g1").held == 0
    await bench.tenant.close()


async def test_who_leaves_meanwhile_leaves_no_half_kept_snapshot(tmp_path: Path) -> None:
    """Table and disk say the same, whichever moment it was."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf = bench.tenant.shelf
    async with shelf.writing:
        task = aio.spawn(keeping.keep(shelf, kept, group="g1"), name="keep")
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert decode((tmp_path / kept.sidecar).read_bytes()).pins == shelf.index.snapshots[kept.id].pins
    await bench.tenant.close()


async def test_deleting_what_is_just_being_pinned_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The description that is written last does not outlive its snapshot."""
    bench = Bench()
    kept = await one(bench, tmp_path)
    shelf, describe = bench.tenant.shelf, Folder.describe
    loop = asyncio.get_running_loop()

    def late(folder: Folder, snapshot: Snapshot, *, durable: bool = True) -> None:
        asyncio.run_coroutine_threadsafe(by_hand.delete(shelf, snapshot), loop).result()
        describe(folder, snapshot, durable=durable)

    monkeypatch.setattr(Folder, "describe", late)
    with pytest.raises(NotFound):
        await by_hand.pin(shelf, kept, pinned=True)
    assert not (tmp_path / kept.name).exists()
    assert not (tmp_path / kept.sidecar).exists()
    await bench.tenant.close()
